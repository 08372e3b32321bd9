/* Workspaces: pieces that do not overlap, a dry run that counts what use takes, and red zones that notice every byte written
 * beyond a piece in debug builds. That convolutions stay within the workspace they announce: test_conv.c. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#ifndef NITI_DEBUG
#define NITI_DEBUG /* this file's workspaces have red zones in every build */
#endif
#include "backend/cpu/workspace.h"
#include "guarded.h"

enum { PIECES = 4 };

static const size_t sizes[PIECES] = {1, 64, 100, 0};

static NitiWorkspace take_all(uint8_t *piece[PIECES], void *memory, size_t bytes) {
  NitiWorkspace w = niti_workspace_begin(memory, bytes);
  for (size_t i = 0; i < PIECES; ++i) piece[i] = niti_workspace_take(&w, sizes[i]);
  return w;
}

static void test_dry_run(void **unused) {
  (void)unused;
  uint8_t *piece[PIECES];
  const NitiWorkspace count = take_all(piece, NULL, 0);
  for (size_t i = 0; i < PIECES; ++i) assert_null(piece[i]);
  assert_true(niti_workspace_intact(&count));
  uint8_t *memory = guarded(count.used);
  const NitiWorkspace w = take_all(piece, memory, count.used);
  assert_int_equal(w.used, count.used);
  check_guards(memory, count.used); /* red zones included */
  for (size_t i = 0; i < PIECES; ++i) {
    assert_int_equal((uintptr_t)piece[i] % NITI_WORKSPACE_ALIGNMENT, 0);
    assert_true(piece[i] >= memory + NITI_RED_ZONE);
    assert_true(piece[i] + sizes[i] + NITI_RED_ZONE <= (i + 1 < PIECES ? piece[i + 1] : memory + count.used));
  }
  release(memory);
}

/* All that a piece has may be written; the bytes before and after it may not, whatever they are. */
static void test_red_zones(void **unused) {
  (void)unused;
  uint8_t *piece[PIECES];
  const size_t bytes = take_all(piece, NULL, 0).used;
  uint8_t *memory = guarded(bytes);
  NitiWorkspace w = take_all(piece, memory, bytes);
  for (size_t i = 0; i < PIECES; ++i) memset(piece[i], 0, sizes[i]);
  assert_true(niti_workspace_intact(&w));
  for (size_t at = 0; at < bytes; ++at) {
    bool inside = false;
    for (size_t i = 0; i < PIECES; ++i) inside |= memory + at >= piece[i] && memory + at < piece[i] + sizes[i];
    const uint8_t before = memory[at];
    memory[at] = (uint8_t)~before;
    assert_int_equal(niti_workspace_intact(&w), inside);
    memory[at] = before;
  }
  release(memory);
}

/* Taking the same pieces again finds what was left in them. */
static void test_again(void **unused) {
  (void)unused;
  uint8_t *piece[PIECES];
  const size_t bytes = take_all(piece, NULL, 0).used;
  uint8_t *memory = guarded(bytes);
  take_all(piece, memory, bytes);
  for (size_t i = 0; i < PIECES; ++i) memset(piece[i], (int)i + 1, sizes[i]);
  const NitiWorkspace w = take_all(piece, memory, bytes);
  for (size_t i = 0; i < PIECES; ++i) {
    for (size_t j = 0; j < sizes[i]; ++j) assert_int_equal(piece[i][j], i + 1);
  }
  assert_true(niti_workspace_intact(&w));
  release(memory);
}

static void test_sizes(void **unused) {
  (void)unused;
  assert_int_equal(niti_round_up(0, 64), 0);
  assert_int_equal(niti_round_up(1, 64), 64);
  assert_int_equal(niti_round_up(64, 64), 64);
  assert_int_equal(niti_divide_up(7, 3), 3);
  assert_int_equal(niti_divide_up(6, 3), 2);
  assert_int_equal(niti_least(3, 4), 3);
  assert_int_equal(niti_most(3, 4), 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_dry_run),
      cmocka_unit_test(test_red_zones),
      cmocka_unit_test(test_again),
      cmocka_unit_test(test_sizes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
