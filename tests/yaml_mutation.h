/* Random changes to a YAML text, the same ones every time. */
#ifndef NITI_TESTS_YAML_MUTATION_H
#define NITI_TESTS_YAML_MUTATION_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline uint32_t mutation_word(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(*state >> 33);
}

/* Calls try(text) `count` times on copies with one to four bytes changed, inserted, removed or a piece doubled; the number of
 * times it said true. */
static inline size_t mutate_text(const char *text, int count, uint64_t seed, bool (*try)(const char *)) {
  static const char likely[] = "0123456789:,-[]{}\n #'\"&*!|>%@`~?abnx.\t\\=\xc3\xff";
  const size_t length = strlen(text), size = 2 * length + 64;
  char *copy = malloc(size);
  size_t accepted = 0;
  for (int i = 0; copy && i < count; ++i) {
    size_t n = length;
    memcpy(copy, text, length + 1);
    for (uint32_t edits = 1 + mutation_word(&seed) % 4; edits > 0 && n > 8; --edits) {
      const size_t at = mutation_word(&seed) % n;
      const uint32_t kind = mutation_word(&seed) % 8;
      const char byte = kind & 1 ? likely[mutation_word(&seed) % (sizeof likely - 1)] : (char)(1 + mutation_word(&seed) % 255);
      if (kind < 4) {
        copy[at] = byte;
      } else if (kind < 6 && n + 2 < size) {
        memmove(copy + at + 1, copy + at, n - at + 1);
        copy[at] = byte;
        ++n;
      } else if (kind == 6) {
        const size_t piece = 1 + mutation_word(&seed) % (n - at < 12 ? n - at : 12);
        memmove(copy + at, copy + at + piece, n - at - piece + 1);
        n -= piece;
      } else {
        const size_t piece = 1 + mutation_word(&seed) % (n - at < 40 ? n - at : 40);
        if (n + piece >= size) continue;
        memmove(copy + at + piece, copy + at, n - at + 1);
        n += piece;
      }
    }
    if (try(copy)) ++accepted;
  }
  free(copy);
  return accepted;
}

#endif
