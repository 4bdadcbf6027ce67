#include <keel/cil/journal.h>
#include <keel/cil/object_item.h>

#include <cstdio>

keel::Status show(const keel::RecoveredCheckpoint& checkpoint) {
  for (const keel::RecoveredItem& item : checkpoint.items) {
    const auto object = keel::RecoveredObject::from(item);
    if (!object) continue;  // an item of another type
    char text[32] = {};
    object->bytes.copy_to(text, sizeof text - 1);
    std::printf("recovered object %d: %s\n", static_cast<int>(object->id), text);
  }
  return {};
}

int main() {
  (void)keel::create_log("demo.log", {.size = keel::Bytes(16 << 20)});  // unless it exists
  keel::ObjectItem alice(1), bob(2);  // before the journal: they outlive it
  auto journal = keel::Journal::open("demo.log", {}, show);
  if (!journal.ok()) return std::puts(journal.error().message().c_str()), 1;
  auto transaction = (*journal)->begin(2 * keel::ObjectItem::log_bytes(16), 2);
  if (!transaction.ok()) return 1;
  alice.set("60", 2);
  bob.set("40", 2);
  if (!transaction->log(alice).ok() || !transaction->log(bob).ok()) return 1;
  const auto sequence = transaction->commit();                        // in memory
  return sequence.ok() && (*journal)->force(*sequence).ok() ? 0 : 1;  // on disk
}
