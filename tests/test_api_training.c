/* The contracts of the formulas of training in niti.h: arguments out of range give 0 or leave outputs as they were, and the
 * largest in range overflow nothing. tests/oracle/test_public.py has their results. */
#include "api_test.h"

static void losses_out_of_range_are_harmless(void **state) {
  static const struct {
    int classes, target;
    uint64_t index0;
  } absurd[] = {{0, 0, 0},
                {-1, 0, 0},
                {INT_MIN, 0, 0},
                {65537, 0, 0},
                {INT_MAX, 0, 0},
                {3, -1, 0},
                {3, INT_MIN, 0},
                {3, 3, 0},
                {3, INT_MAX, 0},
                {3, 0, UINT64_MAX},
                {3, 0, (UINT64_C(1) << 34) - 2}};
  const int8_t logits[3] = {1, 2, 3};
  int8_t delta[3] = {77, 77, 77};
  int32_t acc[3] = {77, 77, 77};
  (void)state;
  niti_loss_niti(NULL, logits, 0, 3, 0, 1, 1, 0);
  niti_loss_niti(delta, NULL, 0, 3, 0, 1, 1, 0);
  niti_loss_softmax(NULL, logits, 0, 3, 0);
  niti_loss_softmax(acc, NULL, 0, 3, 0);
  assert_int_equal(niti_loss_value(NULL, 0, 3, 0), 0);
  for (size_t i = 0; i < sizeof absurd / sizeof *absurd; ++i) {
    niti_loss_niti(delta, logits, 0, absurd[i].classes, absurd[i].target, 1, 1, absurd[i].index0);
    if (absurd[i].index0) continue;
    niti_loss_softmax(acc, logits, 0, absurd[i].classes, absurd[i].target);
    assert_int_equal(niti_loss_value(logits, 0, absurd[i].classes, absurd[i].target), 0);
  }
  for (int i = 0; i < 3; ++i) assert_true(delta[i] == 77 && acc[i] == 77);
  for (int i = 0; i < 2; ++i) { /* any exponent is in range, and so is the last index */
    niti_loss_niti(delta, logits, i ? INT32_MAX : INT32_MIN, 3, 0, 1, 1, (UINT64_C(1) << 34) - 3);
    niti_loss_softmax(acc, logits, i ? INT32_MAX : INT32_MIN, 3, 0);
    (void)niti_loss_value(logits, i ? INT32_MAX : INT32_MIN, 3, 0);
    assert_true(delta[0] != 77 && acc[0] != 77);
  }
}

static void flips_out_of_range_are_harmless(void **state) {
  const int8_t logits[3] = {1, 2, 3};
  (void)state;
  for (int i = 0; i < 2; ++i) { /* any exponent is in range */
    int32_t sums[3] = {77, 77, 77}, exponent = 0;
    niti_flip_sums(sums, &exponent, NULL, 0, logits, 0, 3);
    niti_flip_sums(NULL, &exponent, logits, 0, logits, 0, 3);
    assert_true(sums[0] == 77 && exponent == 0);
    niti_flip_sums(sums, &exponent, logits, i ? INT32_MAX : INT32_MIN, logits, INT32_MIN, 3);
    assert_true(i ? exponent == 0 && sums[2] == 3 << 15 : exponent == INT32_MIN && sums[2] == 6);
    (void)niti_flip_loss(sums, exponent, 3, 0);
    assert_int_equal(niti_flip_loss(NULL, 0, 3, 0), 0);
    assert_int_equal(niti_flip_loss(sums, 0, 3, 3), 0);
    assert_int_equal(niti_flip_loss(sums, 0, 65537, 0), 0);
    sums[1] = INT32_MIN;
    assert_int_equal(niti_flip_loss(sums, 16, 3, 0), 0);
    sums[1] = 1 << 23;
    assert_int_equal(niti_flip_loss(sums, 16, 3, 0), 0);
    sums[1] = (1 << 23) - 1;
    assert_int_equal(niti_flip_loss(sums, INT32_MAX, 3, 1), 0); /* the others are far below */
  }
}

static void averaging_out_of_range_is_harmless(void **state) {
  int16_t mean[3] = {77, 77, 77};
  int64_t all[3] = {77, 77, 77};
  int32_t exponent = 0;
  (void)state;
  niti_average_add(NULL, &exponent, 0, mean, 0, 3);
  niti_average_add(all, NULL, 0, mean, 0, 3);
  niti_average_add(all, &exponent, 0, NULL, 0, 3);
  niti_average_add(all, &exponent, -1, mean, 0, 3);
  niti_average_add(all, &exponent, (1 << 20) + 1, mean, 0, 3);
  niti_average_add(all, &exponent, 1 << 20, mean, 0, 3);
  niti_average_add(all, &exponent, INT64_MAX, mean, 0, 3);
  niti_average_add(all, &exponent, 1, mean, INT32_MAX, 3);
  all[1] = INT64_MAX;
  niti_average_add(all, &exponent, 1, mean, 0, 3);
  all[1] = INT64_MIN;
  niti_average_add(all, &exponent, 1, mean, 0, 3);
  niti_average_take(mean, &exponent, all, 0, 1, 3);
  niti_average_take(NULL, &exponent, all, 0, 1, 3);
  niti_average_take(mean, NULL, all, 0, 1, 3);
  niti_average_take(mean, &exponent, NULL, 0, 1, 3);
  niti_average_take(mean, &exponent, all, 0, 0, 3);
  niti_average_take(mean, &exponent, all, INT32_MIN, 1, 3);
  all[1] = INT64_MAX;
  niti_average_take(mean, &exponent, all, 0, 1, 3);
  assert_true(mean[0] == 77 && all[0] == 77 && exponent == 0);
}

static void folding_out_of_range_is_harmless(void **state) {
  const int64_t all[3] = {77, 77, 77};
  int16_t mean[3] = {77, 77, 77};
  int32_t exponent = 0;
  int8_t folded[3] = {77, 77, 77};
  const NitiFoldLayer layer = {.weight = mean, .norm_weight = mean, .norm_bias = mean, .running = all, .channels = 1, .size = 3};
  const int64_t negative[2] = {0, -42950}; /* with epsilon nothing is left to divide by */
  NitiFoldLayer far = layer, empty = layer, none = layer, wrong = layer, later = layer;
  far.weight_exponent = 1025;
  empty.size = 0;
  none.running = NULL;
  wrong.running = negative;
  later.reserved[1] = 1;
  (void)state;
  niti_fold_norm(NULL, &exponent, mean, &exponent, &layer);
  niti_fold_norm(folded, NULL, mean, &exponent, &layer);
  niti_fold_norm(folded, &exponent, NULL, &exponent, &layer);
  niti_fold_norm(folded, &exponent, mean, NULL, &layer);
  niti_fold_norm(folded, &exponent, mean, &exponent, NULL);
  niti_fold_norm(folded, &exponent, mean, &exponent, &far);
  niti_fold_norm(folded, &exponent, mean, &exponent, &empty);
  niti_fold_norm(folded, &exponent, mean, &exponent, &none);
  niti_fold_norm(folded, &exponent, mean, &exponent, &wrong);
  niti_fold_norm(folded, &exponent, mean, &exponent, &later);
  assert_true(folded[0] == 77 && mean[0] == 77 && exponent == 0);
}

static void updates_out_of_range_are_harmless(void **state) {
  const int64_t gradient[2] = {100, -100}, huge[2] = {INT64_C(1) << 62, 0}, least[2] = {INT64_MIN, 0};
  int8_t weight[2] = {5, 6};
  (void)state;
  niti_update_niti(NULL, gradient, 2, 3);
  niti_update_niti(weight, NULL, 2, 3);
  niti_update_niti(weight, gradient, 2, -1);
  niti_update_niti(weight, gradient, 2, 31);
  niti_update_niti(weight, gradient, 2, INT_MIN);
  niti_update_niti(weight, huge, 2, 0);
  niti_update_niti(weight, least, 2, 0);
  niti_update_niti(weight, gradient, 0, 3);
  assert_true(weight[0] == 5 && weight[1] == 6);
  niti_update_niti(weight, gradient, 2, 3);
  assert_true(weight[0] < 5 && weight[1] > 6);
}

static void updates_sgd_out_of_range_are_harmless(void **state) {
  const int64_t gradient[2] = {100, -100}, least[2] = {INT64_MIN, 0};
  const NitiSgdStep good = {.rate = 100000000, .images = 4};
  NitiSgdStep bad[] = {good, good, good, good, good, good, good};
  int16_t weight[2] = {5000, 6000}, velocity[2] = {7, 8};
  int32_t e = -9, f = -9;
  (void)state;
  bad[0].rate = -1;
  bad[1].momentum = 1000000000;
  bad[2].decay = INT64_MAX;
  bad[3].images = 0;
  bad[4].reserved[1] = 1;
  bad[5].rate = INT64_MIN;
  bad[6].clip[1] = -30;
  for (int i = 0; i < 7; ++i) niti_update_sgd(weight, &e, velocity, &f, gradient, -9, 2, &bad[i]);
  niti_update_sgd(NULL, &e, velocity, &f, gradient, -9, 2, &good);
  niti_update_sgd(weight, NULL, velocity, &f, gradient, -9, 2, &good);
  niti_update_sgd(weight, &e, NULL, &f, gradient, -9, 2, &good);
  niti_update_sgd(weight, &e, velocity, NULL, gradient, -9, 2, &good);
  niti_update_sgd(weight, &e, velocity, &f, NULL, -9, 2, &good);
  niti_update_sgd(weight, &e, velocity, &f, gradient, -9, 2, NULL);
  niti_update_sgd(weight, &e, velocity, &f, gradient, INT_MIN, 2, &good);
  niti_update_sgd(weight, &e, velocity, &f, least, -9, 2, &good);
  assert_true(weight[0] == 5000 && weight[1] == 6000 && velocity[0] == 7 && velocity[1] == 8 && e == -9 && f == -9);
  niti_update_sgd(weight, &e, velocity, &f, gradient, -9, 2, &good);
  assert_int_equal(e, -10); /* no weight is above 14000: they have twice the mantissas, less a rate's share */
  assert_true(weight[0] >= 9990 && weight[0] < 10000 && weight[1] > 12000 && weight[1] <= 12010);
}

/* mu 6.5: 2^6.5, 90.5, of the largest gradient; whole ones are those of niti_update_niti. */
static void fractional_mu(void **state) {
  const int64_t gradient[3] = {INT64_C(1) << 40, -(INT64_C(1) << 39), 0};
  (void)state;
  for (int32_t mu = 0; mu <= 30; ++mu) {
    int8_t whole[3] = {100, -100, 7}, same[3] = {100, -100, 7};
    niti_update_niti(whole, gradient, 3, mu);
    niti_update_niti_fraction(same, gradient, 3, 1000000 * mu);
    assert_memory_equal(whole, same, sizeof whole);
  }
  int8_t weight[3] = {100, -100, 7};
  niti_update_niti_fraction(weight, gradient, 3, -1);
  niti_update_niti_fraction(weight, gradient, 3, 30000001);
  niti_update_niti_fraction(NULL, gradient, 3, 6500000);
  niti_update_niti_fraction(weight, NULL, 3, 6500000);
  assert_true(weight[0] == 100 && weight[1] == -100 && weight[2] == 7);
  niti_update_niti_fraction(weight, gradient, 3, 6500000);
  assert_true((weight[0] == 9 || weight[0] == 10) && (weight[1] == -55 || weight[1] == -54) && weight[2] == 7);
}

/* The largest gradient, 128, is one step of int8 weights, 256 units, at a rate of 1; smaller ones their share. */
static void normalised_steps_are_of_int8_weights(void **state) {
  const int64_t gradient[3] = {128000, -64000, 0}, small[3] = {1, 0, 0};
  NitiSgdStep step = {.rate = 1000000000, .images = 1};
  int16_t weight[3] = {5000, 6000, -7}, velocity[3] = {0, 0, 0};
  int32_t f = 0;
  (void)state;
  niti_update_niti16(NULL, -9, velocity, &f, gradient, 3, &step);
  niti_update_niti16(weight, INT_MIN, velocity, &f, gradient, 3, &step);
  niti_update_niti16(weight, -9, velocity, &f, gradient, 3, NULL);
  step.clip[0] = 1 << 30; /* a factor of a half, and of 1 */
  step.clip[1] = -31;
  niti_update_niti16(weight, -9, velocity, &f, gradient, 3, &step);
  step.clip[1] = -30;
  niti_update_niti16(weight, -9, velocity, &f, gradient, 3, &step);
  step.clip[0] = step.clip[1] = 0;
  assert_true(weight[0] == 5000 && weight[1] == 6000 && weight[2] == -7 && f == 0);
  niti_update_niti16(weight, -9, velocity, &f, gradient, 3, &step); /* 128000 is 250 of 256 parts of 2^17 */
  assert_true(weight[0] == 4750 && weight[1] == 6125 && weight[2] == -7);
  niti_update_niti16(weight, -9, velocity, &f, small, 3, &step); /* a sum of 1 counts as one 128th */
  assert_true(weight[0] == 4748 && weight[1] == 6125 && weight[2] == -7);
}

static void clipping_out_of_range_is_harmless(void **state) {
  const int64_t gradient[2] = {3, -4}, least[2] = {INT64_MIN, 0};
  int64_t total[2] = {0, 0}, factor[2] = {0, 0}, wrong[2] = {1, 0};
  (void)state;
  niti_gradient_squares(NULL, gradient, 0, 2);
  niti_gradient_squares(total, NULL, 0, 2);
  niti_gradient_squares(total, least, 0, 2);
  niti_gradient_squares(total, gradient, INT_MIN, 2);
  niti_gradient_squares(total, gradient, 0, 0);
  niti_gradient_squares(wrong, gradient, 0, 2);
  niti_clip_factor(NULL, total, 1, 1);
  niti_clip_factor(factor, NULL, 1, 1);
  niti_clip_factor(factor, wrong, 1, 1);
  niti_clip_factor(factor, total, 0, 1);
  niti_clip_factor(factor, total, 1, INT64_MAX);
  assert_true(total[0] == 0 && total[1] == 0 && factor[0] == 0 && factor[1] == 0 && wrong[0] == 1 && wrong[1] == 0);
  niti_gradient_squares(total, gradient, 0, 2);
  assert_true(total[0] == 25 << 26 && total[1] == -26); /* 3 * 3 + 4 * 4 */
  niti_clip_factor(factor, total, INT64_C(5000001000), 1);
  assert_true(factor[0] == 1 << 30 && factor[1] == -30); /* a norm of 5, and PyTorch's 10^-6 */
  niti_clip_factor(factor, total, INT64_C(2500000000), 1);
  assert_true(factor[1] == -32 && factor[0] < INT64_C(1) << 31 && factor[0] > (INT64_C(1) << 31) - 1000);
}

static void rates_and_labels_out_of_range_are_harmless(void **state) {
  const int8_t logits[2] = {1, 2};
  int32_t acc[2] = {77, 77};
  (void)state;
  assert_int_equal(niti_rate_along_cosine(-1, 0, 0, 1), 0);
  assert_int_equal(niti_rate_along_cosine(1, INT64_MAX, 0, 1), 0);
  assert_int_equal(niti_rate_along_cosine(1, 1, 2, 1), 0);
  assert_int_equal(niti_rate_along_cosine(1, 1, 0, 0), 0);
  assert_int_equal(niti_rate_along_cosine(1, 1, 0, INT64_MAX), 0);
  assert_int_equal(niti_rate_along_cosine(8, 4, 1, 2), 6);
  assert_int_equal(niti_rate_along_line(-1, 0, 0, 1), 0);
  assert_int_equal(niti_rate_along_line(1, INT64_MAX, 0, 1), 0);
  assert_int_equal(niti_rate_along_line(1, 1, 0, 0), 0);
  assert_int_equal(niti_rate_along_line(8, 4, 1, 2), 6);
  assert_int_equal(niti_rate_in_warmup(5, 4, 4), 0);
  assert_int_equal(niti_rate_in_warmup(INT64_MAX, 1, 4), 0);
  assert_int_equal(niti_rate_in_warmup(5, -1, 4), 0);
  assert_int_equal(niti_rate_in_warmup(8, 1, 4), 4);
  assert_int_equal(niti_step_at_share(-1, 10), 0);
  assert_int_equal(niti_step_at_share(1000001, 10), 0);
  assert_int_equal(niti_step_at_share(500000, INT64_MAX), 0);
  assert_int_equal(niti_step_at_share(500000, 11), 5);
  niti_loss_softmax_smoothed(NULL, logits, 0, 2, 0, 0);
  niti_loss_softmax_smoothed(acc, NULL, 0, 2, 0, 0);
  niti_loss_softmax_smoothed(acc, logits, 0, 2, 2, 0);
  niti_loss_softmax_smoothed(acc, logits, 0, 2, 0, -1);
  niti_loss_softmax_smoothed(acc, logits, 0, 2, 0, 1000000000);
  niti_loss_softmax_mixed(NULL, logits, 0, 2, 0, 1, 9, 0);
  niti_loss_softmax_mixed(acc, NULL, 0, 2, 0, 1, 9, 0);
  niti_loss_softmax_mixed(acc, logits, 0, 2, 2, 1, 9, 0);
  niti_loss_softmax_mixed(acc, logits, 0, 2, 0, 2, 9, 0);
  niti_loss_softmax_mixed(acc, logits, 0, 2, 0, -1, 9, 0);
  niti_loss_softmax_mixed(acc, logits, 0, 2, 0, 1, 129, 0);
  niti_loss_softmax_mixed(acc, logits, 0, 2, 0, 1, -1, 0);
  niti_loss_softmax_mixed(acc, logits, 0, 2, 0, 1, 9, 1000000000);
  assert_true(acc[0] == 77 && acc[1] == 77);
}

static void norms_out_of_range_are_harmless(void **state) {
  const int16_t weight[1] = {1 << 14}, bias[1] = {0};
  const NitiNormLayer good = {.weight = weight, .bias = bias, .weight_exponent = -14, .count = 2, .channels = 1};
  const int8_t x[2] = {-3, 3};
  NitiNormLayer bad[] = {good, good, good, good, good, good, good};
  int8_t y[2] = {77, 77};
  int64_t running[2] = {0, 1}, negative[2] = {0, -1}, gradients[2] = {77, 77};
  int32_t e = 77, factors[2] = {77, 77};
  (void)state;
  bad[0].weight = NULL;
  bad[1].count = 0;
  bad[2].count = (1 << 24) + 1;
  bad[3].channels = 0;
  bad[4].weight_exponent = INT_MAX;
  bad[5].reserved[0] = 1;
  bad[6].rounding = (NitiRounding)99;
  for (int i = 0; i < 7; ++i) {
    niti_norm_forward(y, &e, running, &bad[i], true, x, 0);
    niti_norm_backward(y, &e, gradients, gradients + 1, &bad[i], x, 0, x, 0);
    niti_norm_statistics(gradients, gradients, gradients, NULL, &bad[i], x, 0);
    niti_norm_factors(factors, factors, &e, NULL, &bad[i], x, 0);
    niti_norm_delta_factors(factors, factors, factors, &e, &bad[i], x, 0, x, 0);
  }
  niti_norm_statistics(NULL, gradients, gradients, NULL, &good, x, 0);
  niti_norm_statistics(gradients, NULL, gradients, NULL, &good, x, 0);
  niti_norm_statistics(gradients, gradients, NULL, NULL, &good, x, 0);
  niti_norm_statistics(gradients, gradients, gradients, NULL, &good, NULL, 0);
  niti_norm_statistics(gradients, gradients, gradients, negative, &good, x, 0);
  niti_norm_statistics(gradients, gradients, gradients, NULL, NULL, x, 0);
  niti_norm_factors(NULL, factors, &e, NULL, &good, x, 0);
  niti_norm_factors(factors, NULL, &e, NULL, &good, x, 0);
  niti_norm_factors(factors, factors, NULL, NULL, &good, x, 0);
  niti_norm_factors(factors, factors, &e, negative, &good, x, 0);
  niti_norm_factors(factors, factors, &e, NULL, &good, NULL, 0);
  niti_norm_factors(factors, factors, &e, NULL, &good, x, INT_MAX);
  niti_norm_delta_factors(NULL, factors, factors, &e, &good, x, 0, x, 0);
  niti_norm_delta_factors(factors, factors, NULL, &e, &good, x, 0, x, 0);
  niti_norm_delta_factors(factors, factors, factors, &e, &good, x, INT_MIN, x, 0);
  niti_norm_delta_factors(factors, factors, factors, &e, &good, NULL, 0, x, 0);
  assert_true(factors[0] == 77 && factors[1] == 77 && gradients[1] == 77);
  assert_int_equal(niti_norm_move((INT64_C(1) << 60) + 1, gradients), 0);
  assert_int_equal(niti_norm_move(INT64_MIN, running), 0);
  assert_int_equal(niti_norm_move(20, NULL), 0);
  assert_int_equal(niti_norm_move_centred((INT64_C(1) << 60) + 1, gradients), 0);
  assert_int_equal(niti_norm_move_centred(INT64_MIN, running), 0);
  assert_int_equal(niti_norm_move_centred(20, NULL), 0);
  niti_norm_centring(NULL, running, 2, 0);
  niti_norm_centring(factors, NULL, 2, 0);
  niti_norm_centring(factors, running, 2, INT_MAX);
  niti_norm_centring(factors, running, -1, 0);
  assert_true(factors[0] == 77 && factors[1] == 77);
  niti_norm_forward(NULL, &e, running, &good, true, x, 0);
  niti_norm_forward(y, NULL, running, &good, true, x, 0);
  niti_norm_forward(y, &e, NULL, &good, true, x, 0);
  niti_norm_forward(y, &e, running, NULL, true, x, 0);
  niti_norm_forward(y, &e, running, &good, true, NULL, 0);
  niti_norm_forward(y, &e, negative, &good, false, x, 0);
  niti_norm_backward(y, &e, NULL, gradients, &good, x, 0, x, 0);
  niti_norm_backward(y, &e, gradients, gradients, &good, x, INT_MIN, x, INT_MIN);
  assert_true(y[0] == 77 && y[1] == 77 && e == 77 && running[0] == 0 && running[1] == 1 && gradients[0] == 77);
  niti_norm_forward(y, &e, running, &good, true, x, 0);
  assert_true(e == -4 && y[0] == -16 && y[1] == 16); /* deviations of 3: -1 and 1 at exponent -4, which holds 4 */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(losses_out_of_range_are_harmless),
      cmocka_unit_test(flips_out_of_range_are_harmless),
      cmocka_unit_test(averaging_out_of_range_is_harmless),
      cmocka_unit_test(folding_out_of_range_is_harmless),
      cmocka_unit_test(updates_out_of_range_are_harmless),
      cmocka_unit_test(updates_sgd_out_of_range_are_harmless),
      cmocka_unit_test(fractional_mu),
      cmocka_unit_test(normalised_steps_are_of_int8_weights),
      cmocka_unit_test(clipping_out_of_range_is_harmless),
      cmocka_unit_test(rates_and_labels_out_of_range_are_harmless),
      cmocka_unit_test(norms_out_of_range_are_harmless),
  };
  return cmocka_run_group_tests_name("api_training", tests, NULL, NULL);
}
