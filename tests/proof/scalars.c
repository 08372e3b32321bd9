/* For Frama-C's Eva (scripts/prove.sh): functions of scalars on every scalar at once, by intervals. Each call's alarms, overflow
 * and shifts out of range among them, are what the proof is about. */
#include "__fc_builtin.h"

static int leading_zeros(unsigned long long v) {
  int count = 0;
  //@ loop unroll 64;
  for (int bit = 63; bit >= 0 && !(v >> bit); --bit) ++count; /* what the compiler has built in */
  return count;
}
#define __builtin_clzll leading_zeros

#include "base/fixed.h"
#include "base/scalar.h"
#include "base/shift_prediction.h"
#include "base/softmax.h"
#include "base/update.h"

/* Any normalised scalar of that sign. */
static NitiScalar any(int negative) {
  const int32_t m = Frama_C_interval(1 << 30, INT32_MAX);
  const NitiScalar s = {negative ? -m : m, Frama_C_interval(-100000, 100000)};
  return s;
}

/* What mul, div, add and sqrt compute before they normalise, and what needs no normalising. */
static void prove(NitiScalar a, NitiScalar b) {
  const int64_t product = (int64_t)a.m * b.m;
  //@ assert -(1LL << 62) < product < (1LL << 62);
  const int64_t quotient = (int64_t)((niti_magnitude64(a.m) << 32) / niti_magnitude64(b.m));
  //@ assert 0 < quotient < (1LL << 33);
  const int64_t rest = (int64_t)((niti_magnitude64(b.m) << 31) >> Frama_C_interval(0, 62));
  const int64_t sum = a.m * ((int64_t)1 << 31) + (b.m < 0 ? -rest : rest);
  //@ assert -(1LL << 62) * 2 < sum < (1LL << 62) * 2;
  const uint64_t squared = niti_magnitude64(a.m) << 31;
  //@ assert squared < (1LL << 62);
  (void)sum;
  (void)niti_scalar_neg(a);
  const int64_t fixed = niti_scalar_fixed(a, Frama_C_interval(-100000, 100000), 1L << 60);
  //@ assert -(1LL << 60) <= fixed <= (1LL << 60);
  (void)niti_scalar_times(Frama_C_long_interval(-2147483647L, 2147483647L), a, Frama_C_interval(-100000, 100000));
}

int main(void) {
  //@ loop unroll 2;
  for (int first = 0; first < 2; ++first) {
    //@ loop unroll 2;
    for (int second = 0; second < 2; ++second) prove(any(first), any(second));
  }
  const uint32_t power = niti_exp2_frac_inline((uint32_t)Frama_C_interval(0, 65535));
  //@ assert power >= (1 << 30);
  (void)power;
  (void)niti_loss_weight_softmax(Frama_C_long_interval(-(1L << 40), 0));
  (void)niti_loss_weight_niti(Frama_C_long_interval(-(1L << 40), 0));
  (void)niti_loss_base2((int8_t)Frama_C_interval(-127, 127), Frama_C_interval(-100000, 100000));
  const int step = niti_update_step((int8_t)Frama_C_interval(-127, 127), (int8_t)Frama_C_interval(-127, 127));
  //@ assert -127 <= step <= 127;
  (void)step;
  const int next = niti_shift_prediction_next(Frama_C_interval(0, (1 << 24) - 1), NITI_PREDICTION_EVEN);
  //@ assert 0 <= next <= NITI_SHIFT_MAX;
  (void)next;
  return 0;
}
