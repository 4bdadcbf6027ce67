// keel log dump: every checkpoint of a log and what it holds. Reads only.
//
// Printed while it is read, so that a log of any size takes little more memory than reading its
// largest checkpoint does. So with --json too: what there may be many of (checkpoints, items,
// ranges, regions) is printed one by one, never gathered, as that would take many times what it
// takes in the log.

#include <algorithm>
#include <array>
#include <cstdio>
#include <vector>

#include "command.h"
#include "log_text.h"
#include "output.h"

namespace keel::tools {
namespace {

constexpr std::size_t kHexRow = 16;

struct Options {
  std::string path;
  ScanOptions scan;
  std::uint64_t from = 0;
  std::uint64_t to = kMostNumber;
  Bytes hex_bytes{};
};

std::vector<std::uint8_t> first_bytes(const RecoveredRegion& region, Bytes most) {
  std::vector<std::uint8_t> bytes(std::min<std::uint64_t>(region.size_bytes(), most.value()));
  region.copy_to(bytes.data(), bytes.size());
  return bytes;
}

std::string plain_hex(const std::vector<std::uint8_t>& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 0x0fU];
  }
  return text;
}

void print_hex(const std::vector<std::uint8_t>& bytes) {
  for (std::size_t row = 0; row < bytes.size(); row += kHexRow) {
    std::string digits, text;
    for (std::size_t i = row; i < std::min(row + kHexRow, bytes.size()); ++i) {
      std::array<char, 8> pair{};
      std::snprintf(pair.data(), pair.size(), "%02x ", unsigned{bytes[i]});
      digits += pair.data();
      text += bytes[i] >= 0x20 && bytes[i] < 0x7f ? static_cast<char>(bytes[i]) : '.';
    }
    std::printf("      %08zx  %-48s |%s|\n", row, digits.c_str(), text.c_str());
  }
}

const char* operation_of(const RecoveredObject& object) {
  return object.erased ? "erase" : object.partial ? "write-ranges" : "write";
}

// "3 ranges of 8192 bytes: 0+10 512+128 8000+192"
std::string describe(const RecoveredRanges& ranges, std::uint64_t size_bytes) {
  std::string text = std::to_string(ranges.count()) + " ranges of " + std::to_string(size_bytes);
  text += " bytes";
  for (std::size_t i = 0; i < ranges.count(); ++i) {
    text += (i == 0 ? ": " : " ") + std::to_string(ranges.offset(i)) + "+" +
            std::to_string(ranges.bytes(i).size_bytes());
  }
  return text;
}

std::string describe(const RecoveredItem& item) {
  if (const auto object = RecoveredObject::from(item)) {
    const std::string name = "object " + std::to_string(object->id) + ": " + operation_of(*object);
    return object->partial ? name + ", " + describe(object->ranges, object->size_bytes) : name;
  }
  if (const auto range = RecoveredRange::from(item)) {
    return "range " + std::to_string(range->id) + ": " + describe(range->ranges, range->size_bytes);
  }
  if (const auto intent = RecoveredIntent::from(item)) {
    return "intent " + std::to_string(intent->id);
  }
  if (const auto done = RecoveredDone::from(item)) {
    return "done " + std::to_string(done->id);
  }
  return "item of type " + std::to_string(item.type());
}

void print_json_text(const Json& json) { std::fputs(json_text(json).c_str(), stdout); }

// Without the closing brace: more follows.
void print_open_json(const Json& json) {
  std::string text = json_text(json);
  text.pop_back();
  std::fputs(text.c_str(), stdout);
}

// The next member of an object: an array of element(0) ... element(count - 1).
template <class Element>
void print_array(const char* name, std::size_t count, const Element& element) {
  std::printf(",\"%s\":[", name);
  for (std::size_t i = 0; i < count; ++i) {
    std::fputs(i == 0 ? "" : ",", stdout);
    print_json_text(element(i));
  }
  std::fputs("]", stdout);
}

class Dump {
 public:
  Dump(const Options& options, bool json) : options_(options), json_(json) {}

  void checkpoint(const RecoveredCheckpoint& checkpoint) {
    const std::uint64_t sequence = checkpoint.sequence.value();
    if (sequence < options_.from || sequence > options_.to) {
      return;
    }
    ++printed_;
    json_ ? as_json(checkpoint) : as_text(checkpoint);
  }

  [[nodiscard]] std::uint64_t printed() const { return printed_; }

 private:
  void as_text(const RecoveredCheckpoint& checkpoint) const {
    std::printf(
        "checkpoint %llu: LSN %llu, %llu bytes, %u records, %zu items, incarnation %s, tail %llu, "
        "stable %llu\n",
        number(checkpoint.sequence.value()), number(checkpoint.start.value()),
        number(checkpoint.bytes.value()), checkpoint.record_count, checkpoint.items.size(),
        hex(checkpoint.incarnation).c_str(), number(checkpoint.tail.value()),
        number(checkpoint.stable.value()));
    for (const RecoveredItem& item : checkpoint.items) {
      item_as_text(item);
    }
  }

  void item_as_text(const RecoveredItem& item) const {
    std::printf("  %s", describe(item).c_str());
    std::printf(", regions of");
    for (const RecoveredRegion& region : item.regions()) {
      std::printf(" %zu", region.size_bytes());
    }
    std::printf(" bytes\n");
    if (options_.hex_bytes > Bytes(0)) {
      for (const RecoveredRegion& region : item.regions()) {
        print_hex(first_bytes(region, options_.hex_bytes));
      }
    }
  }

  void as_json(const RecoveredCheckpoint& checkpoint) const {
    std::fputs(printed_ > 1 ? ",\n" : "\n", stdout);
    print_open_json({{"sequence", checkpoint.sequence.value()},
                     {"lsn", checkpoint.start.value()},
                     {"bytes", checkpoint.bytes.value()},
                     {"records", checkpoint.record_count},
                     {"incarnation", hex(checkpoint.incarnation)},
                     {"tail_lsn", checkpoint.tail.value()},
                     {"stable_lsn", checkpoint.stable.value()}});
    std::fputs(",\"items\":[", stdout);
    const char* separator = "";
    for (const RecoveredItem& item : checkpoint.items) {
      std::fputs(separator, stdout);
      separator = ",";
      item_as_json(item);
    }
    std::fputs("]}", stdout);
  }

  void item_as_json(const RecoveredItem& item) const {
    Json head{{"type", item.type()}};
    RecoveredRanges ranges;
    if (const auto object = RecoveredObject::from(item)) {
      head["object"] = object->id;
      head["operation"] = operation_of(*object);
      head["object_bytes"] = object->size_bytes;
      ranges = object->ranges;
    } else if (const auto range = RecoveredRange::from(item)) {
      head["range"] = range->id;
      head["memory_bytes"] = range->size_bytes;
      ranges = range->ranges;
    } else if (const auto intent = RecoveredIntent::from(item)) {
      head["intent"] = intent->id;
    } else if (const auto done = RecoveredDone::from(item)) {
      head["done"] = done->id;
    }
    print_open_json(head);
    if (ranges.count() > 0) {  // As pairs of offset and length.
      print_array("ranges", ranges.count(), [&ranges](std::size_t i) {
        return Json::array({ranges.offset(i), ranges.bytes(i).size_bytes()});
      });
    }
    const auto regions = item.regions();
    print_array("region_bytes", regions.size(),
                [&regions](std::size_t i) { return Json(regions[i].size_bytes()); });
    if (options_.hex_bytes > Bytes(0)) {
      print_array("hex", regions.size(), [this, &regions](std::size_t i) {
        return Json(plain_hex(first_bytes(regions[i], options_.hex_bytes)));
      });
    }
    std::fputs("}", stdout);
  }

  static unsigned long long number(std::uint64_t value) { return value; }

  const Options& options_;
  const bool json_;
  std::uint64_t printed_ = 0;
};

// The end of the one JSON object, after the checkpoints.
void finish_json(const Options& options, bool ok, Json last) {
  last["path"] = options.path;
  last["ok"] = ok;
  std::printf("],%s\n", json_text(last).substr(1).c_str());
}

int run(const Context& context, const Options& options) {
  const auto info = read_log_info(options.path, options.scan.buffered);
  require(info, options.path);
  (void)warn_of(options.path, *info);
  if (context.json) {
    std::printf("{\"log\":%s,\"checkpoints\":[", json_text(to_json(*info)).c_str());
  } else {
    print_text(options.path, *info);
    std::printf("\n");
  }
  Dump dump(options, context.json);
  const auto scanned = scan_log(
      options.path,
      [&dump](const RecoveredCheckpoint& checkpoint) {
        dump.checkpoint(checkpoint);
        return Status{};
      },
      options.scan);
  if (!scanned && context.json) {
    const Failure failure(options.path, scanned.error());
    std::fprintf(stderr, "keel: %s\n", failure.line().c_str());
    finish_json(options, false, failure.json());
    return failure.exit_code();
  }
  require(scanned, options.path);
  const bool sound = scanned->end != LogEnd::kDamaged;
  if (context.json) {
    finish_json(options, sound, {{"report", to_json(*scanned)}});
  } else {
    std::printf("%s%s checkpoints printed\n", dump.printed() > 0 ? "\n" : "",
                grouped(dump.printed()).c_str());
    print_text(*scanned);
  }
  if (!sound) {
    const std::string text = scanned->message();
    std::fprintf(stderr, "keel: %s: %s\n", printable(options.path).c_str(), text.c_str());
  }
  return sound ? kOk : kCheckFailed;
}

}  // namespace

void add_log_dump(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, Options& options) {
    app.add_option("PATH", options.path, "The log file")->required();
    add_number(app, "--from", options.from, 0, kMostNumber, "First sequence to print");
    add_number(app, "--to", options.to, 0, kMostNumber, "Last sequence to print");
    add_size(app, "--bytes", options.hex_bytes, "Print so many bytes of each region in hex [0]");
    app.add_flag("--buffered", options.scan.buffered,
                 "Through the page cache, where there is no direct I/O");
  };
  add_command<Options>(parent, context, "dump", "Print every checkpoint in a log", define, run);
}

}  // namespace keel::tools
