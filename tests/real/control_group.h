// A control group of version 1, which has a hierarchy a controller, or of version 2, which has one
// for all.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace keel_test {

class ControlGroup {
 public:
  enum class Of : std::uint8_t { kMemory, kBlockIo };

  // Empty; its processes have to enter it. nullptr, and `why`, if there is none to be had.
  [[nodiscard]] static std::unique_ptr<ControlGroup> make(Of of, std::string& why);
  ~ControlGroup();
  ControlGroup(const ControlGroup&) = delete;
  ControlGroup& operator=(const ControlGroup&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

  // False where the kernel refuses it.
  [[nodiscard]] bool limit_memory(std::uint64_t bytes) const;
  // Of what is written to the device "major:minor"; 0: as much as may be.
  [[nodiscard]] bool limit_writes(const std::string& device, std::uint64_t bytes_a_second) const;
  // This process, with all its threads; leave(): back where it was not limited.
  [[nodiscard]] bool enter() const;
  void leave() const;

 private:
  ControlGroup() = default;
  [[nodiscard]] bool write(const std::string& file, const std::string& text) const;

  std::string root_;
  std::string path_;
  bool version2_ = false;
};

}  // namespace keel_test
