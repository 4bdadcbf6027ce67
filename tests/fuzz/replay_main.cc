// Runs a fuzzer once over each file that it is given, or that stands in a directory: the corpus as
// a test, without libFuzzer.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "fuzz_input.h"

namespace {

std::vector<std::string> files_of(int argc, char** argv) {
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    if (!std::filesystem::is_directory(argv[i])) {
      files.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

int main(int argc, char** argv) {
  const auto start = std::chrono::steady_clock::now();
  const auto files = files_of(argc, argv);
  for (const std::string& name : files) {
    std::ifstream file(name, std::ios::binary);
    if (!file) {
      (void)std::fprintf(stderr, "cannot read %s\n", name.c_str());
      return 1;
    }
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    // Said before, so that a crash has a name.
    (void)std::fprintf(stderr, "%s\n", name.c_str());
    (void)LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  (void)std::fprintf(stderr, "replayed=%zu failures=0 seconds=%.1f\n", files.size(), took.count());
  return files.empty() ? 1 : 0;
}
