/* The contracts of the formulas in niti.h: arguments out of range give 0 or leave outputs as they were, and the largest in range
 * overflow nothing. tests/oracle/test_public.py has their results. */
#include "api_test.h"

static void arithmetic_out_of_range_is_harmless(void **state) {
  static const int shifts[] = {INT_MIN, -1, 63, 64, INT_MAX};
  (void)state;
  assert_int_equal(niti_bits(UINT64_MAX), 64);
  assert_int_equal(niti_requantise_shift(UINT32_MAX), 25);
  for (size_t i = 0; i < sizeof shifts / sizeof *shifts; ++i) {
    for (int mode = NITI_NEAREST; mode <= NITI_STOCHASTIC_BYTE; ++mode) {
      assert_int_equal(niti_round(1000, shifts[i], (NitiRounding)mode, 1), 0);
      assert_int_equal(niti_round_int8(1000, shifts[i], (NitiRounding)mode, 1), 0);
    }
  }
  assert_int_equal(niti_round(INT64_C(1) << 40, 33, NITI_STOCHASTIC, 1), 0);
  assert_int_equal(niti_round(1000, 1, (NitiRounding)99, 1), 0);
  assert_int_equal(niti_round(1000, 1, (NitiRounding)-1, 1), 0);
  assert_int_equal(niti_round(INT64_MIN, 1, NITI_NEAREST, 0), 0);
  assert_int_equal(niti_round(INT64_C(1) << 62, 1, NITI_NEAREST, 0), 0);
  assert_int_equal(niti_round((INT64_C(1) << 62) - 1, 62, NITI_NEAREST, 0), 1); /* the largest of each */
  assert_int_equal(niti_random(1, NITI_DRAW_INIT, 0, 0, UINT64_C(1) << 34), 0);
  assert_int_equal(niti_random(1, NITI_DRAW_INIT, 0, 0, UINT64_MAX), 0);
  assert_int_equal(niti_exp2_frac(1 << 16), 0);
  assert_int_equal(niti_exp2_frac(UINT32_MAX), 0);
  assert_int_equal(niti_log2(0), 0);
  assert_int_equal(niti_log2(UINT64_C(1) << 47), 0);
  assert_int_equal(niti_log2(UINT64_MAX), 0);
  assert_int_equal(niti_init_exponent(0, 0), 0);
  assert_int_equal(niti_init_exponent(-1, 100), 0);
  assert_int_equal(niti_init_exponent(100, INT64_MIN), 0);
  assert_int_equal(niti_init_exponent(INT64_MAX, 1), 0);
  assert_int_equal(niti_init_weight(1, 1, UINT64_C(1) << 34), 0);
  assert_int_equal(niti_init_weight(1, 1, UINT64_MAX), 0);
}

static void scalars_out_of_range_change_nothing(void **state) {
  static const int64_t bad[][2] = {{1, 0},
                                   {INT64_C(1) << 31, 0},
                                   {-((INT64_C(1) << 30) - 1), 0},
                                   {0, 1},
                                   {INT64_MIN, 0},
                                   {INT64_MAX, 0},
                                   {1 << 30, INT64_MAX},
                                   {1 << 30, INT64_MIN},
                                   {1 << 30, (1 << 20) + 1}};
  const int64_t one[2] = {1 << 30, -30}, less[2] = {-(1 << 30), -30}, zero[2] = {0, 0}, far[2] = {1 << 30, 1 << 20};
  int64_t out[2] = {77, 77};
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    niti_scalar_product(out, bad[i], one);
    niti_scalar_product(out, one, bad[i]);
    niti_scalar_quotient(out, bad[i], one);
    niti_scalar_quotient(out, one, bad[i]);
    niti_scalar_sum(out, bad[i], one);
    niti_scalar_sum(out, one, bad[i]);
    niti_scalar_root(out, bad[i]);
    assert_int_equal(niti_scalar_nearest(bad[i], 0, 9), 0);
    assert_int_equal(niti_scalar_multiple(9, bad[i], 0), 0);
    assert_int_equal(niti_norm_move(9, bad[i]), 0);
  }
  niti_scalar_of(NULL, 1, 0);
  niti_scalar_of(out, INT64_MIN, 0);
  niti_scalar_of(out, 1, (1 << 20) + 1);
  niti_scalar_of(out, 1, INT32_MIN);
  niti_scalar_product(NULL, one, one);
  niti_scalar_product(out, NULL, one);
  niti_scalar_product(out, one, NULL);
  niti_scalar_quotient(out, one, zero);
  niti_scalar_quotient(out, NULL, one);
  niti_scalar_sum(out, one, NULL);
  niti_scalar_root(out, less);
  niti_scalar_root(out, NULL);
  assert_true(out[0] == 77 && out[1] == 77);
  assert_int_equal(niti_scalar_nearest(NULL, 0, 9), 0);
  assert_int_equal(niti_scalar_nearest(one, 0, 0), 0);
  assert_int_equal(niti_scalar_nearest(one, 0, INT64_C(1) << 62), 0);
  assert_int_equal(niti_scalar_nearest(one, INT32_MIN, 9), 0);
  assert_int_equal(niti_scalar_nearest(one, INT32_MAX, 9), 0);
  assert_int_equal(niti_scalar_nearest(far, -(1 << 20), 9), 9);
  assert_int_equal(niti_scalar_multiple(INT64_C(1) << 31, one, 0), 0);
  assert_int_equal(niti_scalar_multiple(INT64_MIN, one, 0), 0);
  assert_int_equal(niti_scalar_multiple(1, one, INT32_MIN), 0);
  assert_int_equal(niti_scalar_multiple(1, NULL, 0), 0);
  assert_int_equal(niti_scalar_multiple(-1, far, -(1 << 20)), -(INT64_C(1) << 62));
  niti_scalar_product(out, far, far); /* is more than may go in again */
  assert_true(out[0] == 1 << 30 && out[1] == (1 << 21) + 30);
  niti_scalar_of(out, -12, 1); /* an output may be an input */
  niti_scalar_sum(out, out, out);
  assert_int_equal(niti_scalar_nearest(out, 4, 100), -3);
}

static void roundings_and_weights_out_of_range_are_harmless(void **state) {
  const int16_t weight[3] = {1, 2, 3}, least[3] = {INT16_MIN, 0, 0};
  (void)state;
  assert_int_equal(niti_requantise_shift_clipped(5000, -1), 0);
  assert_int_equal(niti_requantise_shift_clipped(5000, 8), 0);
  assert_int_equal(niti_requantise_shift_clipped(UINT32_MAX, 1), 24);
  assert_int_equal(niti_random_rounding(NITI_STOCHASTIC, 1, NITI_DRAW_FORK, 0, 0, UINT64_C(1) << 34), 0);
  assert_int_equal(niti_random_rounding((NitiRounding)99, 1, NITI_DRAW_FORK, 0, 0, 1), 0);
  assert_true(niti_random_rounding(NITI_STOCHASTIC_BYTE, 1, NITI_DRAW_FORK, 0, 0, (UINT64_C(1) << 34) - 1) < 256);
  assert_int_equal(niti_weight_operand(32513), 0);
  assert_int_equal(niti_weight_operand(INT16_MIN), 0);
  assert_int_equal(niti_weight_operand(-32512), -127);
  assert_int_equal(niti_weight_exponent_step(NULL, 3), 0);
  assert_int_equal(niti_weight_exponent_step(weight, 0), 0);
  assert_int_equal(niti_weight_exponent_step(least, 3), 0);
  assert_int_equal(niti_weight_exponent_step(weight, 3), -1);
}

static void layers_out_of_range_are_harmless(void **state) {
  const int8_t delta[2] = {-128, 127};
  int64_t gradient[2] = {77, 77};
  int32_t a = 77, b = 77, acc[2] = {77, 77};
  uint32_t threshold = 77;
  (void)state;
  assert_int_equal(niti_bias_align(1, 1025, 1025), 0);
  assert_int_equal(niti_bias_align(1, INT32_MIN, INT32_MAX), 0);
  assert_int_equal(niti_bias_align(INT16_MIN, 1024, -1024), -(1 << 29));
  niti_bias_gradient(NULL, delta, 2, 1);
  niti_bias_gradient(gradient, NULL, 2, 1);
  niti_bias_gradient(gradient, delta, 0, 1);
  niti_bias_gradient(gradient, delta, INT64_MAX, 1);
  niti_bias_gradient(gradient, delta, 2, 0);
  niti_bias_gradient(gradient, delta, 2, INT32_MIN);
  assert_true(gradient[0] == 77 && gradient[1] == 77);
  assert_int_equal(niti_relu_top(-1, 0), 0);
  assert_int_equal(niti_relu_top(INT32_MIN, INT32_MIN), 0);
  assert_int_equal(niti_relu_top(INT32_MAX, INT32_MIN), 128);
  assert_int_equal(niti_relu_top(INT32_MAX, INT32_MAX), 0);
  assert_int_equal(niti_relu_top(INT32_MAX, -30), 128);
  niti_avgpool_factor(NULL, &b, 1);
  niti_avgpool_factor(&a, NULL, 1);
  niti_avgpool_factor(&a, &b, 0);
  niti_avgpool_factor(&a, &b, 32769);
  niti_avgpool_factor(&a, &b, INT32_MIN);
  niti_dropout_factor(NULL, &a, &b, 0);
  niti_dropout_factor(&threshold, NULL, &b, 0);
  niti_dropout_factor(&threshold, &a, NULL, 0);
  niti_dropout_factor(&threshold, &a, &b, -1);
  niti_dropout_factor(&threshold, &a, &b, 1000000);
  niti_dropout_factor(&threshold, &a, &b, INT32_MIN);
  assert_true(a == 77 && b == 77 && threshold == 77);
  assert_int_equal(niti_dropout_value(100, -1, UINT32_MAX), 0);
  assert_int_equal(niti_dropout_value(100, 1000000, UINT32_MAX), 0);
  assert_int_equal(niti_dropout_value(-128, 0, UINT32_MAX), 0);
  niti_add_aligned(NULL, &a, delta, 0, delta, 0, 2);
  niti_add_aligned(acc, NULL, delta, 0, delta, 0, 2);
  niti_add_aligned(acc, &a, NULL, 0, delta, 0, 2);
  niti_add_aligned(acc, &a, delta, 0, NULL, 0, 2);
  assert_true(a == 77 && acc[0] == 77);
  niti_add_aligned(acc, &a, delta, INT32_MAX, delta + 1, INT32_MIN, 1);
  assert_true(a == INT32_MAX - 15 && acc[0] == -(128 << 15));
}

static void windows_out_of_range_are_harmless(void **state) {
  static const int32_t scale[2] = {80000, 1000000}, aspect[2] = {750000, 1333333}, least[2] = {0, 1},
                       swapped[2] = {2000000, 1000000};
  uint32_t order[2] = {77, 77};
  int32_t y = 77, x = 77, rectangle[4] = {77, 77, 77, 77};
  (void)state;
  niti_order_shuffle(NULL, 2, 1, 1);
  niti_order_shuffle(order, -1, 1, 1);
  niti_order_shuffle(order, INT64_C(1) << 32, 1, 1);
  niti_order_shuffle(order, INT64_MAX, 1, 1);
  niti_order_shuffle(order, 0, 1, 1);
  assert_true(order[0] == 77 && order[1] == 77);
  niti_crop_draw(NULL, &x, 1, 1, 1, 1, 1);
  niti_crop_draw(&y, NULL, 1, 1, 1, 1, 1);
  niti_crop_draw(&y, &x, -1, 1, 1, 1, 1);
  niti_crop_draw(&y, &x, 1, INT32_MAX, 1, 1, 1);
  niti_square_draw(NULL, &x, 1, 1, 1, 1, 1, 1);
  niti_square_draw(&y, NULL, 1, 1, 1, 1, 1, 1);
  niti_square_draw(&y, &x, 0, 1, 1, 1, 1, 1);
  niti_square_draw(&y, &x, 16385, 1, 1, 1, 1, 1);
  niti_square_draw(&y, &x, 1, INT32_MIN, 1, 1, 1, 1);
  niti_square_draw(&y, &x, 1, 1, INT32_MAX, 1, 1, 1);
  assert_true(y == 77 && x == 77);
  niti_crop_draw(&y, &x, INT32_MAX - 1, 0, 1, UINT32_MAX, UINT32_MAX);
  assert_true(y >= 0 && y < INT32_MAX && x == 0);
  (void)niti_flip_draw(UINT64_MAX, UINT32_MAX, UINT32_MAX); /* any will do */
  niti_rectangle_draw(NULL, scale, aspect, 9, 9, 1, 1, 1);
  niti_rectangle_draw(rectangle, NULL, aspect, 9, 9, 1, 1, 1);
  niti_rectangle_draw(rectangle, scale, NULL, 9, 9, 1, 1, 1);
  niti_rectangle_draw(rectangle, least, aspect, 9, 9, 1, 1, 1);
  niti_rectangle_draw(rectangle, scale, least, 9, 9, 1, 1, 1);
  niti_rectangle_draw(rectangle, scale, swapped, 9, 9, 1, 1, 1);
  niti_rectangle_draw(rectangle, aspect, aspect, 9, 9, 1, 1, 1);
  niti_rectangle_draw(rectangle, scale, aspect, 0, 9, 1, 1, 1);
  niti_rectangle_draw(rectangle, scale, aspect, INT32_MAX, INT32_MAX, 1, 1, 1);
  niti_rectangle_draw(rectangle, scale, aspect, (1 << 28) + 1, 1, 1, 1, 1);
  assert_true(rectangle[0] == 77 && rectangle[3] == 77);
  niti_rectangle_draw(rectangle, scale, aspect, 1 << 28, 1, 1, 1, 1);
  assert_true(rectangle[1] == 0 && rectangle[3] == 1 && rectangle[2] >= 1 && rectangle[0] <= (1 << 28) - rectangle[2]);
}

/* Each of these is out of range in one place. */
static void scaled_pixels_out_of_range_are_harmless(void **state) {
  static const struct {
    int32_t hwc[3], rectangle[4], size[2], y, x, c;
  } bad[] = {{{0, 2, 1}, {0, 0, 1, 1}, {1, 1}, 0, 0, 0},         {{2, 65537, 1}, {0, 0, 1, 1}, {1, 1}, 0, 0, 0},
             {{2, 2, 0}, {0, 0, 1, 1}, {1, 1}, 0, 0, 0},         {{2, 2, 4097}, {0, 0, 1, 1}, {1, 1}, 0, 0, 0},
             {{2, 2, 1}, {-1, 0, 1, 1}, {1, 1}, 0, 0, 0},        {{2, 2, 1}, {0, 0, 3, 1}, {1, 1}, 0, 0, 0},
             {{2, 2, 1}, {0, 2, 1, 1}, {1, 1}, 0, 0, 0},         {{2, 2, 1}, {INT32_MAX, 0, 1, 1}, {1, 1}, 0, 0, 0},
             {{2, 2, 1}, {0, 0, 1, INT32_MIN}, {1, 1}, 0, 0, 0}, {{2, 2, 1}, {0, 0, 0, 1}, {1, 1}, 0, 0, 0},
             {{2, 2, 1}, {0, 0, 1, 1}, {0, 1}, 0, 0, 0},         {{2, 2, 1}, {0, 0, 1, 1}, {1, 65537}, 0, 0, 0},
             {{2, 2, 1}, {0, 0, 1, 1}, {1, 1}, -1, 0, 0},        {{2, 2, 1}, {0, 0, 1, 1}, {1, 1}, 0, 1, 0},
             {{2, 2, 1}, {0, 0, 1, 1}, {1, 1}, 0, 0, 1},         {{2, 2, 1}, {0, 0, 1, 1}, {1, 1}, 0, 0, -1}};
  const uint8_t pixels[4] = {255, 255, 255, 255};
  const int32_t hwc[3] = {2, 2, 1}, all[4] = {0, 0, 2, 2}, size[2] = {65536, 65536};
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i)
    assert_int_equal(niti_pixel_scale(pixels, bad[i].hwc, bad[i].rectangle, bad[i].size, bad[i].y, bad[i].x, bad[i].c), 0);
  assert_int_equal(niti_pixel_scale(NULL, hwc, all, size, 0, 0, 0), 0);
  assert_int_equal(niti_pixel_scale(pixels, NULL, all, size, 0, 0, 0), 0);
  assert_int_equal(niti_pixel_scale(pixels, hwc, NULL, size, 0, 0, 0), 0);
  assert_int_equal(niti_pixel_scale(pixels, hwc, all, NULL, 0, 0, 0), 0);
  assert_int_equal(niti_pixel_scale(pixels, hwc, all, size, 65535, 32767, 0), 255);
}

static void colours_and_mixtures_out_of_range_are_harmless(void **state) {
  static const int32_t none[3] = {0, 0, 0}, more[3] = {0, 1000001, 0}, less[3] = {0, 0, -1};
  static const int32_t maps[][3] = {
      {-1, 0, 0}, {16385, 0, 0}, {2048, 8193, 0}, {2048, INT32_MIN, 0}, {2048, 0, (1 << 20) + 1}, {2048, 0, INT32_MIN}};
  const uint8_t pixels[3] = {10, 20, 30};
  int32_t map[3] = {77, 77, 77};
  (void)state;
  assert_int_equal(niti_image_grey(NULL, 1, 3), 0);
  assert_int_equal(niti_image_grey(pixels, 0, 3), 0);
  assert_int_equal(niti_image_grey(pixels, INT64_MAX, 3), 0);
  assert_int_equal(niti_image_grey(pixels, 1, 2), 0);
  assert_int_equal(niti_image_grey(pixels, 1, INT32_MIN), 0);
  assert_int_equal(niti_pixel_grey(255, 255, 255), 255);
  niti_jitter_draw(NULL, none, 0, 1, 1, 1);
  niti_jitter_draw(map, NULL, 0, 1, 1, 1);
  niti_jitter_draw(map, more, 0, 1, 1, 1);
  niti_jitter_draw(map, less, 0, 1, 1, 1);
  niti_jitter_draw(map, none, 65281, 1, 1, 1);
  assert_true(map[0] == 77 && map[2] == 77);
  for (size_t i = 0; i < sizeof maps / sizeof *maps; ++i) assert_int_equal(niti_jitter_value(maps[i], 200, 200), 0);
  assert_int_equal(niti_jitter_value(NULL, 200, 200), 0);
  niti_jitter_draw(map, none, 65280, 1, 1, UINT32_MAX);
  assert_int_equal(niti_jitter_value(map, 200, 100), 200);
  assert_int_equal(niti_mixup_draw(0, 1, 1, 1), 0);
  assert_int_equal(niti_mixup_draw(500000, 1, 1, 1), 0);
  assert_int_equal(niti_mixup_draw(INT32_MIN, 1, 1, 1), 0);
  assert_int_equal(niti_mixup_value(100, 100, -1), 0);
  assert_int_equal(niti_mixup_value(100, 100, 129), 0);
  assert_int_equal(niti_mixup_value(-128, 100, 0), 0);
  assert_int_equal(niti_mixup_value(100, -128, 0), 0);
  assert_int_equal(niti_input_value(0, 127, 0, 1), 0);
  assert_int_equal(niti_input_value(129, 128, 0, 1), 0);
  assert_int_equal(niti_input_value(INT32_MIN, 32768, 0, 1), 0);
  assert_int_equal(niti_input_value(100, 128, 1000001, 1), 0);
  assert_int_equal(niti_input_value(100, 128, INT32_MIN, 1), 0);
  assert_int_equal(niti_input_value(100, 128, 0, 0), 0);
  assert_int_equal(niti_input_value(100, 128, 0, 8000001), 0);
  assert_int_equal(niti_input_value(-32768, 32768, 1000000, 1), -127);
}

static void an_input_table_refuses(void **state) {
  static const char function[] = "niti_input_table";
  const int32_t mean[1] = {500000}, std[1] = {250000}, flat[1] = {0};
  int8_t table[256] = {77};
  int32_t exponent = 77;
  (void)state;
  check_refused(niti_input_table(NULL, &exponent, 1, mean, std), function, "table");
  check_refused(niti_input_table(table, NULL, 1, mean, std), function, "exponent");
  check_refused(niti_input_table(table, &exponent, 1, NULL, std), function, "mean");
  check_refused(niti_input_table(table, &exponent, 1, mean, NULL), function, "std");
  check_refused(niti_input_table(table, &exponent, 0, mean, std), function, "channels is 0");
  check_refused(niti_input_table(table, &exponent, INT_MIN, mean, std), function, "channels");
  check_refused(niti_input_table(table, &exponent, 1, mean, flat), function, "std");
  assert_true(table[0] == 77 && exponent == 77);
}

static void probabilities_out_of_range_are_harmless(void **state) {
  const int8_t logits[2] = {1, -128};
  int32_t millionths[2] = {77, 77};
  (void)state;
  niti_probabilities(NULL, logits, 0, 2);
  niti_probabilities(millionths, NULL, 0, 2);
  niti_probabilities(millionths, logits, 0, 0);
  niti_probabilities(millionths, logits, 0, INT32_MIN);
  niti_probabilities(millionths, logits, 0, 65537);
  assert_true(millionths[0] == 77 && millionths[1] == 77);
  niti_probabilities(millionths, logits, INT32_MAX, 2);
  assert_true(millionths[0] == 1000000 && millionths[1] == 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(arithmetic_out_of_range_is_harmless),
      cmocka_unit_test(scalars_out_of_range_change_nothing),
      cmocka_unit_test(roundings_and_weights_out_of_range_are_harmless),
      cmocka_unit_test(layers_out_of_range_are_harmless),
      cmocka_unit_test(windows_out_of_range_are_harmless),
      cmocka_unit_test(scaled_pixels_out_of_range_are_harmless),
      cmocka_unit_test(colours_and_mixtures_out_of_range_are_harmless),
      cmocka_unit_test(an_input_table_refuses),
      cmocka_unit_test(probabilities_out_of_range_are_harmless),
  };
  return cmocka_run_group_tests_name("api formulas", tests, NULL, NULL);
}
