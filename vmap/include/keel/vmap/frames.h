// Runs of frames, and lists of runs that need no array.
#pragma once

#include <cstddef>
#include <span>

#include "keel/base/units.h"

namespace keel {

// Frames that are neighbours in the store. Never empty where one is handed over.
struct FrameRun {
  Pfn first{};
  Pages count{};

  [[nodiscard]] Pfn end() const { return first + count; }
  bool operator==(const FrameRun&) const = default;
};

// A list of frames, read run by run and as often as needed. An interface and not an array, so that
// an owner that links its frames (the page allocator) can have them mapped without allocating.
class FrameSource {
 public:
  virtual ~FrameSource() = default;
  // Goes back to the first run.
  virtual void rewind() = 0;
  // Gives the next run; false at the end.
  virtual bool next(FrameRun& run) = 0;

 protected:
  FrameSource() = default;
  FrameSource(const FrameSource&) = default;
  FrameSource& operator=(const FrameSource&) = default;
};

// Frames from an array of numbers, which must outlive it.
class PfnSource final : public FrameSource {
 public:
  explicit PfnSource(std::span<const Pfn> frames) : frames_(frames) {}
  void rewind() override { at_ = 0; }
  bool next(FrameRun& run) override {
    if (at_ == frames_.size()) {
      return false;
    }
    run = {frames_[at_++], Pages(1)};
    return true;
  }

 private:
  std::span<const Pfn> frames_;
  std::size_t at_ = 0;
};

// Reads another source with runs joined that are neighbours both in the list and in the store.
class JoinedSource final : public FrameSource {
 public:
  explicit JoinedSource(FrameSource& source) : source_(source) { rewind(); }
  void rewind() override {
    source_.rewind();
    more_ = source_.next(ahead_);
  }
  bool next(FrameRun& run) override {
    if (!more_) {
      return false;
    }
    run = ahead_;
    while ((more_ = source_.next(ahead_)) && ahead_.first == run.end()) {
      run.count += ahead_.count;
    }
    return true;
  }

 private:
  FrameSource& source_;
  FrameRun ahead_{};
  bool more_ = false;
};

}  // namespace keel
