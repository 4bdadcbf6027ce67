#include "scoreboard/preload_programs.h"

#include <unistd.h>

#include <cerrno>
#include <fstream>

namespace keel::bench {
namespace {

// An in-memory database: rows with texts of some KiB, an index, a join and a sort.
std::string sql_of(int rows) {
  return "CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, s TEXT);\n"
         "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " +
         std::to_string(rows) +
         ")\n"
         "INSERT INTO t SELECT i, (i * 7919) % 10007, hex(zeroblob(i % 2000)) || i FROM n;\n"
         "CREATE INDEX tk ON t(k);\n"
         "SELECT count(*), sum(length(s)) FROM t;\n"
         "SELECT a.k, count(*), max(length(b.s)) FROM t a JOIN t b ON a.k = b.k\n"
         "  GROUP BY a.k ORDER BY 3 DESC, 1 LIMIT 20;\n"
         "SELECT length(group_concat(s, ',')) FROM (SELECT s FROM t ORDER BY s DESC);\n"
         "UPDATE t SET s = s || s WHERE k % 3 = 0;\n"
         "SELECT sum(length(s)) FROM t;\n";
}

// Templates over many types: what makes a compiler allocate.
std::string source_of(int types) {
  std::string text =
      "#include <algorithm>\n#include <map>\n#include <string>\n#include <vector>\n"
      "template <int N> struct T { std::map<int, std::string> m; std::vector<T<N / 2>> v;\n"
      "  int f(int x) { m[x] = std::to_string(x + N); std::vector<int> w(m.size() + N, x);\n"
      "    std::sort(w.begin(), w.end()); return w[0] + static_cast<int>(m.size()); } };\n"
      "template <> struct T<0> { int f(int x) { return x; } };\n";
  for (int i = 1; i <= types; ++i) {
    const std::string n = std::to_string(i);
    text.append("int f")
        .append(n)
        .append("(int x) { T<")
        .append(n)
        .append("> t; return t.f(x); }\n");
  }
  return text;
}

std::string script_of(int rounds) {
  return "import hashlib, json\n"
         "h = hashlib.sha256()\n"
         "for r in range(" +
         std::to_string(rounds) +
         "):\n"
         "    d = {str(i): [bytes(i % 5000 + 1).hex(), i * r] for i in range(3000)}\n"
         "    t = json.dumps(d, sort_keys=True)\n"
         "    e = json.loads(t)\n"
         "    parts = [t[i:i + 65536] for i in range(0, len(t), 65536)]\n"
         "    h.update(''.join(sorted(parts)).encode())\n"
         "    h.update(str(len(e)).encode())\n"
         "    buf = bytearray()\n"
         "    for i in range(2000):\n"
         "        buf += b'x' * (i % 4096)\n"
         "    h.update(buf)\n"
         "print(h.hexdigest())\n";
}

Status write(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc);
  file << text;
  file.close();
  return file ? Status{} : Status{system_error(errno, "write a program's input")};
}

}  // namespace

Result<std::vector<Program>> write_programs(const std::string& dir, bool smoke) {
  const std::string sql = dir + "/preload.sql", source = dir + "/preload.cc",
                    script = dir + "/preload.py";
  for (const auto& [path, text] : {std::pair{sql, sql_of(smoke ? 200 : 40'000)},
                                   {source, source_of(smoke ? 2 : 60)},
                                   {script, script_of(smoke ? 1 : 12)}}) {
    if (auto status = write(path, text); !status) {
      return status.error();
    }
  }
  std::vector<Program> programs{
      {"sqlite", {"/usr/bin/sqlite3", ":memory:", ".read " + sql}},
      {"compiler", {"/usr/bin/g++", "-O1", "-S", "-o", "/dev/stdout", source}},
      {"python", {"/usr/bin/python3", script}}};
  std::erase_if(programs, [](const Program& program) {
    return ::access(program.arguments.front().c_str(), X_OK) != 0;
  });
  return programs;
}

}  // namespace keel::bench
