#include "range_list.h"

#include <doctest/doctest.h>

#include <random>
#include <sstream>
#include <string>

#include "support/test_seed.h"

using keel::tools::RangeList;

TEST_CASE("ranges are joined, in order, and end with the object") {
  RangeList list;
  list.resize(100);
  CHECK(list.text().empty());
  list.add(50, 10);
  list.add(0, 5);
  list.add(5, 5);    // touches
  list.add(52, 2);   // within
  list.add(55, 10);  // beyond its end
  list.add(70, 0);
  CHECK(list.text() == "0 10\n50 15\n");
  list.add(90, 10);
  list.resize(95);
  CHECK(list.text() == "0 10\n50 15\n90 5\n");
  list.resize(60);
  CHECK(list.text() == "0 10\n50 10\n");
  list.resize(80);  // What it grows by is zeros, whatever was there.
  CHECK(list.text() == "0 10\n50 30\n");
}

TEST_CASE("what is laid over an old object by the list of ranges makes it the new one") {
  std::mt19937_64 random(keel_test::test_seed("range list", 1));
  const auto below = [&random](std::size_t bound) { return random() % bound; };
  for (std::size_t round = 0; round < 200; ++round) {
    std::string home(below(300), 'h');
    std::string object = home;
    std::string partial;
    RangeList list;
    for (std::size_t step = 1 + below(5000 / (round + 1)); step > 0; --step) {
      if (partial.empty() || below(4) == 0) {
        const std::size_t size = 1 + below(300);
        object.resize(size, '\0');
        partial.resize(size, '\0');
        list.resize(size);
      }
      const std::size_t offset = below(object.size());
      const std::string bytes(below(object.size() - offset + 1),
                              static_cast<char>('A' + below(20)));
      object.replace(offset, bytes.size(), bytes);
      partial.replace(offset, bytes.size(), bytes);
      list.add(offset, bytes.size());
    }
    home.resize(partial.size(), '\0');
    std::istringstream lines(list.text());
    for (std::size_t offset = 0, length = 0; lines >> offset >> length;) {
      REQUIRE(offset + length <= partial.size());
      home.replace(offset, length, partial, offset, length);
    }
    REQUIRE(home == object);
  }
}
