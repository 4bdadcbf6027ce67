// `keel log info`, `dump`, `verify` and `recover` on any image, in this process: an exit code that
// is documented, nothing changed in the log, and answers that agree with each other.
#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "command.h"
#include "fuzz_log.h"
#include "output.h"

using namespace keel_fuzz;

namespace {

int run(const std::vector<std::string>& words) {
  std::vector<std::string> line{"keel", "log"};
  line.insert(line.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : line) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  return keel::tools::run_command_line(static_cast<int>(line.size()), argv.data());
}

// In memory where that can be had: files are made and synced there.
const std::string& directory() {
  static const std::string* const made = [] {
    const bool memory = std::filesystem::exists("/dev/shm");
    auto* path = new std::string(memory ? "/dev/shm/keel-fuzz-XXXXXX" : "/tmp/keel-fuzz-XXXXXX");
    FUZZ_CHECK(::mkdtemp(path->data()) != nullptr);
    (void)std::atexit([] { std::filesystem::remove_all(directory()); });
    return path;
  }();
  return *made;
}

// What commands print is not looked at.
void be_silent() {
  static const bool done = [] {
    FUZZ_CHECK(std::freopen("/dev/null", "w", stdout) != nullptr);
    return true;
  }();
  (void)done;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  be_silent();
  (void)fuzz_disk();
  (void)directory();
  FuzzInput input(data, bytes);
  const std::uint8_t way = input.u8();
  const keel::SimContent& image = build_image(input);
  install(image);
  std::vector<std::string> words;
  switch (way % 8) {
    case 0: words = {"info", kImagePath}; break;
    case 1: words = {"info", "--json", kImagePath}; break;
    case 2: words = {"dump", kImagePath, "--bytes", "40"}; break;
    case 3: words = {"dump", "--json", kImagePath, "--bytes", "8"}; break;
    case 4: words = {"dump", kImagePath, "--from", "2", "--to", "3"}; break;
    case 5: words = {"recover", kImagePath, "--to-directory", directory() + "/out"}; break;
    case 6:
      words = {"recover",   kImagePath, "--to-directory", directory() + "/out",
               "--salvage", "--json"};
      break;
    default: words = {"verify", "--json", kImagePath}; break;
  }
  if (way >= 128) {
    words.emplace_back("--buffered");
  }
  const int code = run(words);
  FUZZ_CHECK(code == keel::tools::kOk || code == keel::tools::kCheckFailed ||
             code == keel::tools::kUnfit);
  FUZZ_CHECK(was_only_read());
  std::vector<std::string> verify{"verify", kImagePath};
  if (way >= 128) {
    verify.emplace_back("--buffered");
  }
  const int verdict = run(verify);
  // A log that is sound gives all it holds; one that is none gives nothing.
  FUZZ_CHECK(verdict != keel::tools::kOk || code == keel::tools::kOk);
  FUZZ_CHECK(verdict != keel::tools::kUnfit || code == keel::tools::kUnfit);
  FUZZ_CHECK(was_only_read());
  const bool made = std::filesystem::exists(directory() + "/out");
  FUZZ_CHECK(made == (words[0] == "recover" && code == keel::tools::kOk));
  if (made) {
    std::filesystem::remove_all(directory() + "/out");
  }
  FUZZ_CHECK(std::filesystem::is_empty(directory()));
  return 0;
}
