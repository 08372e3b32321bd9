/* An emulated board without a library: start-up, output and counters. BOARD_CORTEX_M (semihosting, SysTick) or BOARD_RISCV
 * (virt's serial port and minstret). */
#ifndef NITI_TESTS_BARE_H
#define NITI_TESTS_BARE_H

#include <stddef.h>
#include <stdint.h>

extern uint32_t bare_stack_low[], bare_stack_top[], bare_bss[], bare_bss_end[], bare_data[], bare_data_end[], bare_data_load[];
int main(void);
void reset(void);
void *memcpy(void *to, const void *from, size_t size);

/* ---- what a C library would bring ---- */

void *memcpy(void *to, const void *from, size_t size) {
  uint8_t *a = to;
  const uint8_t *b = from;
#ifndef __ARM_ARCH_6M__
  if ((((uintptr_t)a | (uintptr_t)b) & 3) == 0) {
    for (; size >= 4; size -= 4, a += 4, b += 4) *(uint32_t *)(void *)a = *(const uint32_t *)(const void *)b;
  }
#endif
  for (; size > 0; --size) {
    *a++ = *b++;
    __asm__ volatile(""); /* or the compiler calls memcpy */
  }
  return to;
}

/* ---- the board ---- */

#ifdef BOARD_CORTEX_M
#define WORD(address) (*(volatile uint32_t *)(address))

static int32_t semihosting(int32_t operation, const void *argument) {
  register int32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static void print(const char *text) { (void)semihosting(4, text); }
static void stop(void) {
  for (;;) (void)semihosting(0x18, (const void *)0x20026);
}
static void counter_start(void) {
  WORD(0xe000e014) = 0xffffff;
  WORD(0xe000e018) = 0;
  WORD(0xe000e010) = 5;
}
static uint32_t counter_ticks(void) { return (0xffffff - WORD(0xe000e018)) & 0xffffff; }
static void board_start(void) {
#if defined(__ARM_FEATURE_MVE) || defined(__ARM_FP)
  WORD(0xe000ed88) |= 0xf00000;
  __asm__ volatile("dsb\nisb");
#endif
}
__attribute__((section(".vectors"), used)) static void *const vectors[] = {bare_stack_top, (void *)reset, (void *)stop,
                                                                           (void *)stop};
#else
static void print(const char *text) {
  while (*text) *(volatile uint8_t *)0x10000000 = (uint8_t)*text++;
}
static void stop(void) {
  for (;;) *(volatile uint32_t *)0x100000 = 0x5555;
}
static uint32_t started;
static uint32_t instructions(void) {
  uint32_t v;
  __asm__ volatile(".insn i 0x73, 2, %0, x0, -1278" : "=r"(v)); /* csrr %0, minstret */
  return v;
}
static void counter_start(void) { started = instructions(); }
static uint32_t counter_ticks(void) { return instructions() - started; }
static void board_start(void) {
#ifdef __riscv_vector
  __asm__ volatile(".insn i 0x73, 2, x0, %0, 0x300" : : "r"(0x600)); /* csrs mstatus, %0: the vector unit */
#endif
}
__attribute__((naked, section(".vectors"))) void entry(void) { __asm__ volatile("la sp, bare_stack_top\nj reset"); }
#endif

void reset(void) {
  uint32_t *to = bare_data;
  const uint32_t *from = bare_data_load;
  while (to < bare_data_end) {
    *to++ = *from++;
    __asm__ volatile("");
  }
  for (to = bare_bss; to < bare_bss_end; ++to) {
    *to = 0;
    __asm__ volatile("");
  }
  board_start();
  (void)main();
  stop();
}

/* ---- output ---- */

static void print_number(const char *what, uint32_t v) {
  char text[12];
  int i = 11;
  text[i] = 0;
  text[--i] = '\n';
  do {
    text[--i] = (char)('0' + v % 10);
    v /= 10;
  } while (v > 0);
  print(what);
  print(text + i);
}

#endif
