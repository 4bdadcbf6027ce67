/* The default pool from C11. */
#include <keel/keel.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  char* text = keel_kvzalloc(100000, KEEL_NOWARN, "in_c");
  if (text == NULL || text[99999] != 0 || keel_kvsize(text) < 100000) return 1;
  strcpy(text, "kept");
  text = keel_kvrealloc(text, 1000000, KEEL_KERNEL, "in_c");
  if (text == NULL || strcmp(text, "kept") != 0) return 2;
  keel_kvfree_sized(text, 1000000);
  keel_kvfree(keel_kvmalloc(5000, KEEL_NOFS | KEEL_ZERO, NULL));
  keel_purge();
  char stats[200];  /* its beginning */
  if (keel_stats_json(stats, sizeof stats) < sizeof stats || strlen(stats) != 199) return 3;
  if (keel_reserve(1 << 20) != 0 || keel_trim() == 0) return 4;
  return puts(stats) < 0 ? 5 : 0;
}
