/* The runtime's kernels beside portable C, on an emulated board: this file is compiled twice. With -DRT_PORTABLE it is the twin,
 * a library; without, it has the processor's kernels and a program that runs both on the same bytes, at all short lengths and
 * alignments and on some long ones, of random and of the largest values. Prints the kernel and the length of the first
 * difference, and the number of comparisons. */
#define RT_TRAINING 1
#define RT_MODES 15
#define RT_CLIPS 1
#define RT_PLAIN
#define RT_POOLED
#define RT_BIAS
#include "niti_rt_conv.h"
#include "niti_rt_update.h"

#ifdef RT_PORTABLE
#define TWIN(name) portable_##name
#else
#define TWIN(name) kernel_##name
#endif
#define ROWS 4
#define LONGEST 1030

/* What a kernel reads, and what it writes, with room around it that must stay as it is. */
typedef struct operands {
  const int8_t *row[ROWS]; /* of count bytes, and three more */
  int8_t factor[ROWS];
  int32_t count, shift, rows, at; /* at: where bytes begin that are written, 1 to 4 */
} operands;

typedef struct results {
  int32_t sums[LONGEST + 8];
  int8_t low[LONGEST + 8], high[LONGEST + 8];
  int32_t acc[ROWS];
  uint32_t max;
} results;

void portable_zero(results *to, const operands *from);
void portable_copy(results *to, const operands *from);
void portable_outputs(results *to, const operands *from);
void portable_pooled(results *to, const operands *from);
void portable_dot1(results *to, const operands *from);
void portable_dot4(results *to, const operands *from);
void portable_columns(results *to, const operands *from);
void portable_add_rows(results *to, const operands *from);
void portable_put_row(results *to, const operands *from);
void portable_finish(results *to, const operands *from);
void portable_largest(results *to, const operands *from);
void portable_update(results *to, const operands *from);
void kernel_zero(results *to, const operands *from);
void kernel_copy(results *to, const operands *from);
void kernel_outputs(results *to, const operands *from);
void kernel_pooled(results *to, const operands *from);
void kernel_dot1(results *to, const operands *from);
void kernel_dot4(results *to, const operands *from);
void kernel_columns(results *to, const operands *from);
void kernel_add_rows(results *to, const operands *from);
void kernel_put_row(results *to, const operands *from);
void kernel_finish(results *to, const operands *from);
void kernel_largest(results *to, const operands *from);
void kernel_update(results *to, const operands *from);

void TWIN(zero)(results *to, const operands *from) {
  rt_zero_bytes((uint8_t *)to->low + from->at, from->count);
  rt_zero_words(to->sums + 4, from->count);
}

void TWIN(copy)(results *to, const operands *from) { rt_copy(to->low + from->at, from->row[0], from->count); }

void TWIN(dot1)(results *to, const operands *from) { to->acc[0] = rt_dot1(from->row[0], from->row[1], from->count); }

void TWIN(dot4)(results *to, const operands *from) {
  rt_dot4(to->acc, from->row[0], from->row[1], (int32_t)(from->row[2] - from->row[1]), from->count);
}

/* A row of weights, and what follows it, with four columns. */
void TWIN(columns)(results *to, const operands *from) {
  static int32_t memory[4 * LONGEST];
  int8_t *columns = (int8_t *)memory;
  int32_t i;
#ifdef RT_DSP
  rt_columns_start(columns, from->count);
#endif
  for (i = 0; i < ROWS; ++i) {
    rt_copy(rt_column(columns, i, from->count), from->row[i], from->count);
    rt_column_ready(columns, i, from->count);
  }
  if (rt_dot_columns(to->acc, from->row[0], columns, from->count) != from->row[0] + from->count) to->max = 0;
}

void TWIN(add_rows)(results *to, const operands *from) {
  rt_rows rows;
  int32_t i;
  for (i = 0; i < ROWS; ++i) {
    rows.row[i] = from->row[i];
    rows.factor[i] = from->factor[i];
  }
  rows.count = from->rows;
  rt_add_rows(to->sums + 4, &rows, 0, from->count);
}

static rt_sink sink_of(results *to, const operands *from, int32_t shift) {
  rt_sink k;
  k.out = to->low + from->at;
  k.high = to->high + from->at;
  k.winner = NULL;
  k.max = 0;
  k.kind = RT_LATE;
  k.shift = k.guess = shift;
  k.mode = RT_NEAREST;
  k.relu = 0;
  return k;
}

void TWIN(put_row)(results *to, const operands *from) {
  rt_sink k = sink_of(to, from, from->shift);
  rt_put_row(&k, 0, to->sums + 4, from->count);
  to->max = k.max;
}

void TWIN(finish)(results *to, const operands *from) {
  const rt_sink k = sink_of(to, from, from->shift);
  rt_sink_finish(&k, (uint32_t)from->count, from->shift + from->shift % 9);
}

void TWIN(largest)(results *to, const operands *from) { to->max = rt_largest(to->sums + 4, from->count, to->max & 0xffffu); }

void TWIN(update)(results *to, const operands *from) {
  rt_update_row(to->low + from->at, to->sums + 4, from->count, from->shift < 25 ? from->shift : -from->shift);
}

/* A convolution of 1x1 over 2 x (2 * windows) pixels of c channels. Of the largest sum only its bits must agree: they decide the
 * shift. Winners are bytes in `sums`. */
static void convolve(results *to, const operands *from, int32_t pooled) {
  static int32_t memory[4 * LONGEST];
  static const int16_t biases[] = {-32767, 20000, 3, 0, -1, 5000, -700, 12345, 32767, -9};
  rt_conv v = {2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 2, 2, 2, 2, 1, 1, 0, 0, NULL, 0, 0, NULL, 0};
  rt_forward o;
  rt_sink k = sink_of(to, from, 0);
  o.conv = &v;
  v.w = v.ow = (uint16_t)(2 * (1 + from->count % 5) - (pooled ? 0 : from->rows & 1));
  v.pool_ow = v.w / 2;
  v.c = 1 + from->count % 13;
  v.k = 1 + from->count % 19;
  if (v.k <= 10) v.bias = biases;
  k.lift = from->shift - 20;
  k.relu = pooled | (from->rows >> 1);
  if (pooled) k.winner = (uint8_t *)to->sums;
#ifdef RT_DSP
  rt_columns_start((int8_t *)memory, v.c);
#endif
  rt_sink_predict(&k, from->shift % 20);
  if (pooled)
    rt_pooled_image(&k, &o, from->row[1], from->row[0], (int8_t *)memory, 0);
  else
    rt_plain_image(&k, &o, from->row[1], from->row[0], (int8_t *)memory, 0);
  to->max = (uint32_t)rt_bits(k.max);
}

void TWIN(outputs)(results *to, const operands *from) { convolve(to, from, 0); }

void TWIN(pooled)(results *to, const operands *from) { convolve(to, from, 1); }

#ifndef RT_PORTABLE
#include "bare.h"

static uint32_t random_word(void) {
  static uint32_t state = 1;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

/* A mantissa: from -127 to 127, of the largest ones alone, or positive ones alone. */
static int8_t mantissa(int32_t kind) {
  const int32_t v = (int32_t)(random_word() >> 8) % 255 - 127;
  return (int8_t)(kind == 0 ? v : kind == 1 ? (v < 0 ? -127 : 127) : 127);
}

static int32_t sum_of(int32_t kind, int32_t shift) {
  const int32_t v = (int32_t)(random_word() & 0x3fffffffu) >> (int32_t)(random_word() & 15u), most = 0x3fffffff;
  const int32_t m = kind == 0 ? v : kind == 1 ? most : (1 << shift) >> 1; /* a tie */
  return (random_word() & 1u) != 0 ? -m : m;
}

static void prepare(results *to, int32_t kind, int32_t shift) {
  int32_t i;
  for (i = 0; i < LONGEST + 8; ++i) {
    to->sums[i] = sum_of(kind, shift);
    to->low[i] = mantissa(kind);
    to->high[i] = mantissa(kind);
  }
  for (i = 0; i < ROWS; ++i) to->acc[i] = 0;
  to->max = random_word();
}

static int same(const results *a, const results *b) {
  const uint8_t *p = (const uint8_t *)a, *q = (const uint8_t *)b;
  size_t i;
  for (i = 0; i < sizeof *a; ++i) {
    if (p[i] != q[i]) return 0;
  }
  return 1;
}

static const struct {
  const char *name;
  void (*kernel)(results *to, const operands *from);
  void (*portable)(results *to, const operands *from);
} twins[] = {{"differs: zero ", kernel_zero, portable_zero},          {"differs: copy ", kernel_copy, portable_copy},
             {"differs: dot1 ", kernel_dot1, portable_dot1},          {"differs: dot4 ", kernel_dot4, portable_dot4},
             {"differs: columns ", kernel_columns, portable_columns}, {"differs: add_rows ", kernel_add_rows, portable_add_rows},
             {"differs: put_row ", kernel_put_row, portable_put_row}, {"differs: finish ", kernel_finish, portable_finish},
             {"differs: largest ", kernel_largest, portable_largest}, {"differs: update ", kernel_update, portable_update},
             {"differs: outputs ", kernel_outputs, portable_outputs}, {"differs: pooled ", kernel_pooled, portable_pooled}};
static int8_t bytes[ROWS * (LONGEST + 16)];
static results before, ours, theirs;
static uint32_t compared;

static void compare(const operands *o, int32_t kind) {
  size_t t;
  prepare(&before, kind, o->shift);
  for (t = 0; t < sizeof twins / sizeof *twins; ++t) {
    memcpy(&ours, &before, sizeof before);
    memcpy(&theirs, &before, sizeof before);
#ifdef RT_RVV
    __asm__ volatile("vsetivli zero, 0, e8, m1, ta, ma"); /* no kernel relies on what the one before left */
#endif
    twins[t].kernel(&ours, o);
    twins[t].portable(&theirs, o);
    ++compared;
    if (same(&ours, &theirs)) continue;
    print_number(twins[t].name, (uint32_t)o->count);
    stop();
  }
}

int main(void) {
  operands o;
  int32_t kind, i, round;
  for (round = 0; round < 240; ++round) {
    kind = round % 3;
    o.count = round < 210 ? 1 + round / 3 : 200 + (int32_t)(random_word() % (LONGEST - 200 - 7));
    if (round >= 237) o.count = LONGEST;
    o.shift = (int32_t)(random_word() % 28u);
    o.at = 1 + (int32_t)(random_word() & 3u);
    o.rows = 1 + (int32_t)(random_word() & 3u);
    for (i = 0; i < (int32_t)sizeof bytes; ++i) bytes[i] = mantissa(kind);
    for (i = 0; i < ROWS; ++i) {
      o.row[i] = bytes + i * (o.count + 3) + (int32_t)(random_word() & 3u) * (i == 0);
      o.factor[i] = mantissa(kind);
    }
    compare(&o, kind);
  }
  print_number("same ", compared);
  return 0;
}
#endif
