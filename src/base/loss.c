#include "base/loss.h"

#include "base/random.h"
#include "base/round.h"

enum {
  LOG2_E = 94548,   /* log2(e), 16 fraction bits */
  FRACTION = 65535, /* the 16 fraction bits of t and d */
  NITI_RANGE = 10,  /* loss `niti`: bits below the largest logit that still count */
  NITI_BITS = 11,   /* loss `niti`: bits of the error before it is rounded */
  NITI_SHIFT = 4,
  SOFTMAX_BITS = 24, /* loss `softmax`: fraction bits of the error */
  EXP2_BITS = 30,
};

/* A logit in base 2 with 16 fraction bits. */
static int64_t to_base2(int8_t mantissa, int32_t exponent) {
  const int64_t t = (int64_t)mantissa * LOG2_E;
  if (exponent > 0) return t * ((int64_t)1 << (exponent > 16 ? 16 : exponent));
  return t >> (exponent < -40 ? 40 : -exponent);
}

static int64_t largest(const int8_t *logits, int32_t exponent, int classes) {
  int8_t top = logits[0];
  for (int j = 1; j < classes; ++j) top = logits[j] > top ? logits[j] : top;
  return to_base2(top, exponent); /* to_base2 never decreases */
}

/* d <= 0 -> 2^d, 30 fraction bits. */
static uint64_t weight_softmax(int64_t d) {
  const int64_t whole = -(d >> 16);
  return niti_exp2_frac((uint32_t)(d & FRACTION)) >> (whole > 31 ? 31 : whole);
}

/* d <= 0 -> 2^(d + 10) - 1, at least 0, 16 fraction bits. */
static uint64_t weight_niti(int64_t d) {
  const int64_t s = d + ((int64_t)NITI_RANGE << 16);
  if (s <= 0) return 0;
  return (niti_exp2_frac((uint32_t)(s & FRACTION)) >> (EXP2_BITS - 16 - (s >> 16))) - 65536;
}

NitiSoftmax niti_softmax_sum(const int8_t *logits, int32_t exponent, int classes) {
  NitiSoftmax softmax = {.exponent = exponent, .top = largest(logits, exponent, classes), .sum = 0};
  for (int j = 0; j < classes; ++j) softmax.sum += weight_softmax(to_base2(logits[j], exponent) - softmax.top);
  return softmax;
}

void niti_softmax_acc(int32_t *acc, const NitiSoftmax *softmax, const int8_t *logits, int first, int count, int target) {
  for (int i = 0; i < count; ++i) {
    const int j = first + i;
    const uint64_t p = weight_softmax(to_base2(logits[j], softmax->exponent) - softmax->top);
    acc[i] = (int32_t)((p << SOFTMAX_BITS) / softmax->sum) - (j == target ? 1 << SOFTMAX_BITS : 0);
  }
}

int64_t niti_softmax_loss(const NitiSoftmax *softmax, const int8_t *logits, int target) {
  const int64_t d = to_base2(logits[target], softmax->exponent) - softmax->top;
  return niti_log2(softmax->sum) - ((int64_t)EXP2_BITS << 16) - d;
}

void niti_loss_softmax(int32_t *acc, const int8_t *logits, int32_t exponent, int classes, int target) {
  const NitiSoftmax softmax = niti_softmax_sum(logits, exponent, classes);
  niti_softmax_acc(acc, &softmax, logits, 0, classes, target);
}

int64_t niti_loss_value(const int8_t *logits, int32_t exponent, int classes, int target) {
  const NitiSoftmax softmax = niti_softmax_sum(logits, exponent, classes);
  return niti_softmax_loss(&softmax, logits, target);
}

void niti_loss_niti(int8_t *delta, const int8_t *logits, int32_t exponent, int classes, int target, uint64_t seed, uint32_t step,
                    uint64_t index0) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_LOSS, .time = step, .layer = 0};
  const int64_t top = largest(logits, exponent, classes);
  uint64_t sum = 0;
  for (int j = 0; j < classes; ++j) sum += weight_niti(to_base2(logits[j], exponent) - top);

  int64_t total = 0, target_g = 0;
  NitiWords words = niti_draw_block(&draw, (uint32_t)(index0 >> 2));
  for (int j = 0; j < classes; ++j) {
    const uint64_t index = index0 + (uint64_t)j;
    if ((index & 3) == 0) words = niti_draw_block(&draw, (uint32_t)(index >> 2));
    const int64_t g = (int64_t)((weight_niti(to_base2(logits[j], exponent) - top) << NITI_BITS) / sum);
    total += g;
    if (j == target) target_g = g;
    delta[j] = niti_clip8(niti_round_inline(g, NITI_SHIFT, NITI_STOCHASTIC, words.word[index & 3]));
  }
  /* The target's error needs the total of all. */
  delta[target] =
      niti_clip8(niti_round_inline(target_g - total, NITI_SHIFT, NITI_STOCHASTIC, niti_draw(&draw, index0 + (uint64_t)target)));
}
