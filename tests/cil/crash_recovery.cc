#include "crash_recovery.h"

#include <algorithm>
#include <cstring>

#include "keel/cil/object_item.h"
#include "log/log_scan.h"
#include "probe.h"
#include "support/spare_memory.h"

using namespace keel;

namespace keel_test::crash_lab {

RecoveryHandler collector(Recovered& recovered, KnownContents& contents) {
  return [&recovered, &contents](const RecoveredCheckpoint& checkpoint) -> Status {
    for (const RecoveredItem& item : checkpoint.items) {
      const auto object = RecoveredObject::from(item);
      if (!object || object->id >= kCrashObjects) {
        recovered.fault = "an item that nobody logged";
        return {};
      }
      recovered.erased[object->id] = object->erased;
      recovered.versions[object->id] = 0;
      if (object->erased) {
        continue;
      }
      std::string bytes(object->bytes.size_bytes(), '\0');
      object->bytes.copy_to(bytes.data(), bytes.size());
      Version version = 0;
      std::memcpy(&version, bytes.data(), std::min(sizeof version, bytes.size()));
      if (bytes.size() != size_of(version) || bytes != contents.of(version)) {
        recovered.fault = "wrong bytes for object " + std::to_string(object->id);
      }
      recovered.versions[object->id] = version;
    }
    return {};
  };
}

Recovered recover(Pool& pool, KnownContents& contents, bool ahead) {
  Recovered recovered;
  const ReadAheadOptions reading =
      ahead ? ReadAheadOptions{}
            : ReadAheadOptions{.chunk_bytes = SpareMemory::kReadBytes, .depth = 0, .threads = 0};
  contents.trim();
  auto file = LogFile::open(kLogPath, DeviceMode::kReadWrite, false, pool);
  if (!file) {
    recovered.error = file.error();
    return recovered;
  }
  const auto found = scan(*file, collector(recovered, contents), {}, reading);
  recovered.ok = found.ok();
  if (found) {
    recovered.report = found->report;
  } else {
    recovered.error = found.error();
  }
  return recovered;
}

}  // namespace keel_test::crash_lab
