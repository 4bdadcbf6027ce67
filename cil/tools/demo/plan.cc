#include "demo/plan.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "output.h"

namespace keel::tools {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostObjects = std::size_t{1} << 20;

std::int64_t modified_ns(const struct stat& found) {
  return std::int64_t{found.st_mtim.tv_sec} * 1'000'000'000 + found.st_mtim.tv_nsec;
}

Failure system_failure(const std::string& path, int sys_errno, const char* what) {
  return {path, system_error(sys_errno, what)};
}

class Walk {
 public:
  explicit Walk(Bytes limit) : limit_(limit) {}

  void directory(const fs::path& path) {
    std::error_code error;
    std::vector<fs::directory_entry> entries;
    for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
      entries.push_back(*at);
    }
    if (error) {
      ++plan_.unreadable;
    }
    std::sort(entries.begin(), entries.end());
    for (const fs::directory_entry& entry : entries) {
      if (full()) {
        return;
      }
      const fs::file_status status = entry.symlink_status(error);
      if (fs::is_directory(status)) {
        directory(entry.path());
      } else if (fs::is_regular_file(status)) {
        file(entry.path().string());
      }
    }
  }

  Plan take() { return std::move(plan_); }

 private:
  [[nodiscard]] bool full() const {
    return plan_.bytes >= limit_ || plan_.objects.size() >= kMostObjects;
  }

  void file(const std::string& path) {
    struct stat found {};
    if (::access(path.c_str(), R_OK) != 0 || ::stat(path.c_str(), &found) != 0) {
      ++plan_.unreadable;
      return;
    }
    PlannedFile file{path, static_cast<std::uint64_t>(found.st_size), modified_ns(found),
                     static_cast<std::uint32_t>(plan_.objects.size()), 0};
    const auto number = static_cast<std::uint32_t>(plan_.files.size());
    std::uint64_t offset = 0;
    do {
      const std::uint64_t part =
          std::min({file.size_bytes - offset, std::uint64_t{kMostObjectBytes},
                    (limit_ - plan_.bytes).value()});
      plan_.objects.push_back({number, static_cast<std::uint32_t>(part), offset});
      plan_.bytes += Bytes(part);
      offset += part;
      ++file.object_count;
    } while (offset < file.size_bytes && !full());
    plan_.files.push_back(std::move(file));
  }

  const Bytes limit_;
  Plan plan_;
};

template <class T>
void put(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

class Reader {
 public:
  explicit Reader(const std::string& bytes) : bytes_(bytes) {}
  template <class T>
  void get(T& value) {
    std::memcpy(&value, take(sizeof value), sizeof value);
  }
  std::string text(std::size_t size) { return {take(size), size}; }

 private:
  const char* take(std::size_t size) {
    if (bytes_.size() - at_ < size) {
      throw Failure(kWorldFailed, "", "the plan is cut short");
    }
    at_ += size;
    return bytes_.data() + at_ - size;
  }
  const std::string& bytes_;
  std::size_t at_ = 0;
};

// An open file that is still as planned.
class PlannedInput {
 public:
  explicit PlannedInput(const PlannedFile& file)
      : path_(file.path), fd_(::open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) {
    if (fd_ < 0) {
      throw system_failure(path_, errno, "open");
    }
    struct stat found {};
    if (::fstat(fd_, &found) != 0 || static_cast<std::uint64_t>(found.st_size) != file.size_bytes ||
        modified_ns(found) != file.modified_ns) {
      ::close(fd_);
      throw Failure(kWorldFailed, path_, "the file has changed while the demo ran", "changed");
    }
  }
  ~PlannedInput() { ::close(fd_); }
  PlannedInput(const PlannedInput&) = delete;
  PlannedInput& operator=(const PlannedInput&) = delete;

  std::vector<std::byte> read(std::uint64_t offset, std::size_t size) const {
    std::vector<std::byte> bytes(size);
    std::size_t done = 0;
    while (done < size) {
      const ssize_t got =
          ::pread(fd_, bytes.data() + done, size - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got <= 0) {
        throw system_failure(path_, got < 0 ? errno : EIO, "read");
      }
      done += static_cast<std::size_t>(got);
    }
    return bytes;
  }

 private:
  const std::string path_;
  const int fd_;
};

}  // namespace

Plan make_plan(const std::string& directory, Bytes limit) {
  struct stat found {};
  if (::stat(directory.c_str(), &found) != 0) {
    throw system_failure(directory, errno, "the tree to ingest");
  }
  if (!S_ISDIR(found.st_mode)) {
    throw Failure(kWorldFailed, directory, "not a directory", to_string(Errc::kNotFound));
  }
  if (::access(directory.c_str(), R_OK | X_OK) != 0) {
    throw system_failure(directory, errno, "the tree to ingest");
  }
  Walk walk(limit);
  walk.directory(directory);
  Plan plan = walk.take();
  if (plan.bytes == Bytes(0)) {
    throw Failure(kWorldFailed, directory, "nothing to ingest: no readable file with any bytes",
                  to_string(Errc::kNotFound));
  }
  return plan;
}

std::string encode(const Plan& plan) {
  std::string out;
  put(out, plan.files.size());
  for (const PlannedFile& file : plan.files) {
    put(out, file.path.size());
    out += file.path;
    put(out, file.size_bytes);
    put(out, file.modified_ns);
    put(out, file.first_object);
    put(out, file.object_count);
  }
  put(out, plan.objects.size());
  for (const PlannedObject& object : plan.objects) {
    put(out, object);
  }
  return out;
}

Plan decode_plan(const std::string& bytes) {
  Reader reader(bytes);
  Plan plan;
  std::size_t count = 0;
  reader.get(count);
  for (; count > 0; --count) {
    PlannedFile file;
    std::size_t length = 0;
    reader.get(length);
    file.path = reader.text(length);
    reader.get(file.size_bytes);
    reader.get(file.modified_ns);
    reader.get(file.first_object);
    reader.get(file.object_count);
    plan.files.push_back(std::move(file));
  }
  reader.get(count);
  for (; count > 0; --count) {
    PlannedObject object;
    reader.get(object);
    plan.objects.push_back(object);
    plan.bytes += Bytes(object.size_bytes);
  }
  return plan;
}

std::vector<std::byte> read_planned(const PlannedFile& file) {
  return PlannedInput(file).read(0, file.size_bytes);
}

std::vector<std::byte> read_planned(const Plan& plan, const PlannedObject& object) {
  return PlannedInput(plan.files[object.file]).read(object.offset, object.size_bytes);
}

}  // namespace keel::tools
