/* The sketch of both layouts with Arduino's library: learns on the board, and prints how well, and the hash of the weights. */
#include "lesson.h"

static stripes network;
alignas(4) static uint8_t arena[STRIPES_ARENA_BYTES];

static void print_right(const char *when) {
  Serial.print(when);
  Serial.print(lesson_test(&network));
  Serial.println(" of 100 right");
}

void setup() {
  char hash[65];
  Serial.begin(115200);
  stripes_init(&network, arena);
  print_right("before: ");
  for (uint32_t n = 0; n < LESSON_STEPS; ++n) lesson_step(&network, n);
  print_right("after: ");
  stripes_hash(&network, hash);
  Serial.println(hash);
}

void loop() {}
