/* Integer softmax cross-entropy of one image, whole and in parts. */
#include "base/loss.h"

#include "base/mix.h"
#include "base/random.h"
#include "base/softmax.h"

static int64_t largest(const int8_t *logits, int32_t exponent, int classes) {
  int8_t top = logits[0];
  for (int j = 1; j < classes; ++j) top = logits[j] > top ? logits[j] : top;
  return niti_loss_base2(top, exponent);
}

static uint64_t weight(const NitiSoftmax *softmax, int8_t logit) {
  return niti_loss_weight_softmax(niti_loss_base2(logit, softmax->exponent) - softmax->top);
}

static int32_t expected_of(const NitiSoftmax *softmax, int j, int target) {
  return j == target ? softmax->on : j == softmax->other ? softmax->mixed : softmax->off;
}

NitiSoftmax niti_softmax_sum(const int8_t *logits, int32_t exponent, int classes) {
  NitiSoftmax softmax = {
      .exponent = exponent, .top = largest(logits, exponent, classes), .sum = 0, .on = 1 << NITI_LOSS_SOFTMAX_BITS, .other = -1};
  for (int j = 0; j < classes; ++j) softmax.sum += weight(&softmax, logits[j]);
  return softmax;
}

void niti_softmax_expect(NitiSoftmax *softmax, int32_t off, int classes, int32_t label, int32_t next) {
  const int32_t other = niti_label_class(next), on = niti_loss_on(off, classes);
  const bool alone = niti_label_share(label) == 0 || other == niti_label_class(label);
  const int32_t part = alone ? 0 : niti_mixed_part(on, off, niti_label_share(label));
  softmax->off = off;
  softmax->on = on - part;
  softmax->other = alone ? -1 : other;
  softmax->mixed = off + part;
}

void niti_softmax_acc(int32_t *acc, const NitiSoftmax *softmax, const int8_t *logits, int first, int count, int target) {
  for (int i = 0; i < count; ++i) {
    const int j = first + i;
    acc[i] = niti_loss_acc_softmax(weight(softmax, logits[j]), softmax->sum, expected_of(softmax, j, target));
  }
}

int64_t niti_softmax_loss(const NitiSoftmax *softmax, const int8_t *logits, int target) {
  return niti_loss_bits(softmax->sum, niti_loss_base2(logits[target], softmax->exponent) - softmax->top);
}

/* Checks the arguments of the public functions. */
static bool in_range(const void *out, const int8_t *logits, int classes, int target) {
  return out && logits && classes >= 1 && classes <= 65536 && target >= 0 && target < classes;
}

void niti_loss_softmax(int32_t *acc, const int8_t *logits, int32_t exponent, int classes, int target) {
  if (!in_range(acc, logits, classes, target)) return;
  const NitiSoftmax softmax = niti_softmax_sum(logits, exponent, classes);
  niti_softmax_acc(acc, &softmax, logits, 0, classes, target);
}

void niti_loss_softmax_smoothed(int32_t *acc, const int8_t *logits, int32_t exponent, int classes, int target,
                                int64_t smoothing) {
  niti_loss_softmax_mixed(acc, logits, exponent, classes, target, target, 0, smoothing);
}

void niti_loss_softmax_mixed(int32_t *acc, const int8_t *logits, int32_t exponent, int classes, int target, int other,
                             int32_t share, int64_t smoothing) {
  if (!in_range(acc, logits, classes, target) || smoothing < 0 || smoothing >= 1000000000) return;
  if (other < 0 || other >= classes || share < 0 || share > NITI_SHARE_MAX) return;
  NitiSoftmax softmax = niti_softmax_sum(logits, exponent, classes);
  niti_softmax_expect(&softmax, niti_loss_off(smoothing, classes), classes, target | share << NITI_LABEL_SHARE_BIT, other);
  niti_softmax_acc(acc, &softmax, logits, 0, classes, target);
}

int64_t niti_loss_value(const int8_t *logits, int32_t exponent, int classes, int target) {
  if (!in_range(logits, logits, classes, target)) return 0;
  const NitiSoftmax softmax = niti_softmax_sum(logits, exponent, classes);
  return niti_softmax_loss(&softmax, logits, target);
}

void niti_loss_niti(int8_t *delta, const int8_t *logits, int32_t exponent, int classes, int target, uint64_t seed, uint32_t step,
                    uint64_t index0) {
  if (!in_range(delta, logits, classes, target) || index0 > ((uint64_t)1 << 34) - (uint64_t)classes) return;
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_LOSS, .time = step, .layer = 0};
  const int64_t top = largest(logits, exponent, classes);
  uint64_t sum = 0;
  for (int j = 0; j < classes; ++j) sum += niti_loss_weight_niti(niti_loss_base2(logits[j], exponent) - top);

  int64_t total = 0, target_g = 0;
  NitiWords words = niti_draw_block(&draw, (uint32_t)(index0 >> 2));
  for (int j = 0; j < classes; ++j) {
    const uint64_t index = index0 + (uint64_t)j;
    if ((index & 3) == 0) words = niti_draw_block(&draw, (uint32_t)(index >> 2));
    const int64_t g = niti_loss_share_niti(niti_loss_weight_niti(niti_loss_base2(logits[j], exponent) - top), sum);
    total += g;
    if (j == target) target_g = g;
    delta[j] = niti_loss_round_niti(g, words.word[index & 3]);
  }
  /* The target's delta needs the total of all classes. */
  delta[target] = niti_loss_round_niti(target_g - total, niti_draw(&draw, index0 + (uint64_t)target));
}

/* ---- test-time flip ---- */

enum { FLIP_EXPONENT_MAX = 16, FLIP_SUM_MAX = 1 << 23 }; /* what the loss counts larger exponents as; no sum is as large */

static bool are_flip_sums(const int32_t *sums, int classes) {
  for (int j = 0; j < classes; ++j)
    if (sums[j] <= -FLIP_SUM_MAX || sums[j] >= FLIP_SUM_MAX) return false;
  return true;
}

void niti_flip_sums(int32_t *sums, int32_t *exponent, const int8_t *logits, int32_t logits_exponent, const int8_t *mirrored,
                    int32_t mirrored_exponent, size_t count) {
  if (!sums || !exponent || !logits || !mirrored) return;
  const int32_t most = FLIP_EXPONENT_MAX;
  niti_add_aligned(sums, exponent, logits, logits_exponent < most ? logits_exponent : most, mirrored,
                   mirrored_exponent < most ? mirrored_exponent : most, count);
  *exponent -= *exponent > INT32_MIN;
}

int niti_flip_class(const int32_t *sums, int classes) {
  int best = 0;
  for (int j = 1; j < classes; ++j) best = sums[j] > sums[best] ? j : best;
  return best;
}

int64_t niti_flip_loss(const int32_t *sums, int32_t exponent, int classes, int target) {
  if (!sums || classes < 1 || classes > 65536 || target < 0 || target >= classes || !are_flip_sums(sums, classes)) return 0;
  const int64_t top = niti_loss_base2(sums[niti_flip_class(sums, classes)], exponent);
  uint64_t sum = 0;
  for (int j = 0; j < classes; ++j) sum += niti_loss_weight_softmax(niti_loss_base2(sums[j], exponent) - top);
  return niti_loss_bits(sum, niti_loss_base2(sums[target], exponent) - top);
}
