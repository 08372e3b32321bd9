/* Learns on the board, and prints how well, and the hash of the weights. */
#include "board.h"
#include "lesson.h"

static stripes network;
static int32_t arena[STRIPES_ARENA_BYTES / 4];

static void print_right(const char *when, int right) {
  char text[4] = {(char)('0' + right / 100), (char)('0' + right / 10 % 10), (char)('0' + right % 10), 0};
  board_print(when);
  board_print(text + (right < 10 ? 2 : right < 100 ? 1 : 0));
  board_print(" of 100 right\r\n");
}

int main(void) {
  char hash[65];
  uint32_t n;
  stripes_init(&network, arena);
  print_right("before: ", lesson_test(&network));
  for (n = 0; n < LESSON_STEPS; ++n) lesson_step(&network, n);
  print_right("after: ", lesson_test(&network));
  stripes_hash(&network, hash);
  board_print(hash);
  board_print("\r\n");
  return 0;
}
