/* A micro:bit without a library: start-up and serial port (nRF51 Series Reference Manual, "UART"). */
#include <stddef.h>
#include <stdint.h>

#include "board.h"

#define WORD(address) (*(volatile uint32_t *)(address))

enum { TX_PIN = 24, BAUD_115200 = 0x01d7e000, WAIT = 100000 };

extern uint32_t board_data[], board_data_end[], board_data_load[], board_bss[], board_bss_end[], board_stack_top[];
int main(void);
void board_reset(void);
void *memcpy(void *to, const void *from, size_t size);

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {board_stack_top, (void *)board_reset};

/* All that an exported network needs of a C library. */
void *memcpy(void *to, const void *from, size_t size) {
  uint8_t *a = to;
  const uint8_t *b = from;
  for (; size > 0; --size) {
    *a++ = *b++;
    __asm__ volatile(""); /* or the compiler makes a call of memcpy of it */
  }
  return to;
}

static void start_serial(void) {
  int i;
  WORD(0x40000000) = 1; /* the crystal, which keeps the baud rate */
  for (i = 0; i < WAIT && WORD(0x40000100) == 0; ++i) {
  }
  WORD(0x50000700 + 4 * TX_PIN) = 1; /* an output */
  WORD(0x4000250c) = TX_PIN;
  WORD(0x40002524) = BAUD_115200;
  WORD(0x40002500) = 4; /* on */
  WORD(0x40002008) = 1; /* begin to send */
}

void board_print(const char *text) {
  for (; *text; ++text) {
    WORD(0x4000211c) = 0;
    WORD(0x4000251c) = (uint8_t)*text;
    while (WORD(0x4000211c) == 0) {
    }
  }
}

void board_reset(void) {
  uint32_t *to;
  const uint32_t *from = board_data_load;
  for (to = board_data; to < board_data_end; ++to) *to = *from++;
  for (to = board_bss; to < board_bss_end; ++to) *(volatile uint32_t *)to = 0;
  start_serial();
  (void)main();
  for (;;) __asm__ volatile("wfi");
}
