/* The contracts of niti.h: what every public function says and does with NULL for each of its pointers in turn and with absurd
 * values, and what callers may rely on: versions, sizes, threads. */
/* clang-format off */
#include "data_files.h"
/* clang-format on */

#include <limits.h>
#include <pthread.h>

#include "niti.h"

#define CHECKPOINT NITI_SOURCE_DIR "/tests/data/run-0.1.0.safetensors"

/* The call was refused, in one line that begins with the function and names the argument. */
static void check_refused(NitiStatus status, const char *function, const char *argument) {
  const char *message = niti_error();
  if (status != NITI_ERROR_ARGUMENT) fail_msg("%s, %s: status %d: %s", function, argument, (int)status, message);
  const size_t length = strlen(function);
  if (strncmp(message, function, length) != 0 || strncmp(message + length, ": ", 2) != 0 || !strstr(message + length, argument))
    fail_msg("'%s: ' and '%s' expected: %s", function, argument, message);
}

static void check_status(NitiStatus status, NitiStatus expected, const char *word) {
  if (status != expected) fail_msg("status %d, %d expected: %s", (int)status, (int)expected, niti_error());
  if (!strstr(niti_error(), word) || strchr(niti_error(), '\n')) fail_msg("'%s' expected on one line: %s", word, niti_error());
}

static void check_ok(NitiStatus status) {
  if (status != NITI_OK) fail_msg("status %d: %s", (int)status, niti_error());
}

/* ---- what programs rely on ---- */

static void versions_agree(void **state) {
  char text[32];
  (void)state;
  (void)snprintf(text, sizeof text, "%d.%d.%d", NITI_VERSION_MAJOR, NITI_VERSION_MINOR, NITI_VERSION_PATCH);
  assert_string_equal(NITI_VERSION, text);
  assert_string_equal(niti_version(), text);
  assert_int_equal(niti_version_number(), NITI_VERSION_NUMBER);
  assert_int_equal(NITI_VERSION_NUMBER, NITI_VERSION_MAJOR * 10000 + NITI_VERSION_MINOR * 100 + NITI_VERSION_PATCH);
}

/* Programs that were compiled against this SONAME hold structs of these sizes: a new member takes the place of reserved ones. */
static void structs_keep_their_sizes(void **state) {
  (void)state;
  if (sizeof(void *) != 8) skip();
  assert_int_equal(sizeof(NitiDevice), 2 * 8 + 8 + 4 * 8);
  assert_int_equal(sizeof(NitiScore), 3 * 8 + 2 * 8);
  assert_int_equal(sizeof(NitiTrainOptions), sizeof(NitiDevice) + 2 * 8 + 8 + 2 * 8 + 8 * 8);
  assert_int_equal(sizeof(NitiProgress), 2 * 8 + 8 + 4 * 8 + 5 * sizeof(NitiScore) + 5 * 8 + 4 * 8);
  assert_int_equal(sizeof(NitiDataFacts), 2 * 8 + 8 + 3 * 8 + 200 + 8 + 8 + 4 * 8);
  assert_int_equal(sizeof(NitiRunFacts), 5 * 8 + sizeof(NitiDataFacts) + 16 + 2 * 8 + 2 * 4 + 8 + 8 + 2 * 8 + 4 * 8);
  assert_int_equal(sizeof(NitiTrainResult), 72 + 8 + 5 * sizeof(NitiScore) + 8 + 2 * 8 + 2 * 8 + 4 * 8);
}

/* Each NITI_API line of niti.h names a function that this file or test_api_formulas.c calls. */
static void every_function_is_called_here(void **state) {
  size_t header_size = 0, own_size = 0, other_size = 0;
  int count = 0;
  (void)state;
  char *header = (char *)get_file(NITI_SOURCE_DIR "/include/niti.h", &header_size);
  char *own = (char *)get_file(NITI_SOURCE_DIR "/tests/test_api.c", &own_size);
  char *other = (char *)get_file(NITI_SOURCE_DIR "/tests/test_api_formulas.c", &other_size);
  header[header_size] = own[own_size] = other[other_size] = 0;
  for (char *line = strstr(header, "\nNITI_API "); line; line = strstr(line + 1, "\nNITI_API ")) {
    char *name = strstr(line, "niti_"), *end = strchr(line, '(');
    assert_true(name && end && name < end);
    char call[80];
    (void)snprintf(call, sizeof call, "%.*s(", (int)(end - name), name);
    if (!strstr(own, call) && !strstr(other, call)) fail_msg("%s is called in no test of contracts", call);
    ++count;
  }
  assert_true(count >= 28);
  free(header);
  free(own);
  free(other);
}

/* ---- arithmetic: 0, or outputs untouched ---- */

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
    int16_t mean[3] = {77, 77, 77};
    int64_t all[3] = {77, 77, 77};
    int32_t sums[3] = {77, 77, 77}, exponent = 0;
    int8_t folded[3] = {77, 77, 77};
    const NitiFoldLayer layer = {
        .weight = mean, .norm_weight = mean, .norm_bias = mean, .running = all, .channels = 1, .size = 3};
    const int64_t negative[2] = {0, -42950}; /* with epsilon nothing is left to divide by */
    NitiFoldLayer far = layer, empty = layer, none = layer, wrong = layer, later = layer;
    far.weight_exponent = 1025;
    empty.size = 0;
    none.running = NULL;
    wrong.running = negative;
    later.reserved[1] = 1;
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
    assert_true(delta[0] != 77 && acc[0] != 77);
  }
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

/* ---- recipes and runs ---- */

/* A name of 100,000 letters; every call returns the same buffer. */
static const char *long_name(void) {
  static char name[100001];
  memset(name, 'x', sizeof name - 1);
  return name;
}

static void a_recipe_refuses(void **state) {
  static const char function[] = "niti_recipe_load";
  const char *const sets[] = {"epochs=1", NULL}, *const long_set[] = {long_name()};
  NitiRecipe *recipe = (NitiRecipe *)(void *)&recipe;
  (void)state;
  check_refused(niti_recipe_load(NULL, "lenet5-mnist", NULL, 0), function, "out");
  check_refused(niti_recipe_load(&recipe, NULL, NULL, 0), function, "recipe");
  assert_null(recipe);
  check_refused(niti_recipe_load(&recipe, "lenet5-mnist", NULL, 1), function, "set_count is 1 with no sets");
  check_refused(niti_recipe_load(&recipe, "lenet5-mnist", sets, -1), function, "set_count is -1");
  check_refused(niti_recipe_load(&recipe, "lenet5-mnist", NULL, INT_MIN), function, "set_count");
  check_refused(niti_recipe_load(&recipe, "lenet5-mnist", sets, 2), function, "sets[1]");
  check_status(niti_recipe_load(&recipe, "lenet5-mnist", long_set, 1), NITI_ERROR_ARGUMENT, "--set xxx");
  check_status(niti_recipe_load(&recipe, long_name(), NULL, 0), NITI_ERROR_ARGUMENT, "xxx");
  check_status(niti_recipe_load(&recipe, "", NULL, 0), NITI_ERROR_ARGUMENT, "no built-in recipe ''");
  check_status(niti_recipe_load(&recipe, "./none.yaml", NULL, 0), NITI_ERROR_FILE, "./none.yaml");
  assert_null(recipe);
  niti_recipe_close(NULL);
  check_ok(niti_recipe_load(&recipe, "lenet5-mnist", sets, 1));
  niti_recipe_close(recipe);
}

/* Options with one fault each, for niti_train and niti_resume alike. */
static void check_options(NitiStatus (*run)(NitiTrainResult *, const char *, const NitiTrainOptions *), const char *function) {
  NitiTrainResult result;
  NitiTrainOptions options = {.save_every = -1};
  check_refused(run(&result, "run", &options), function, "options->save_every is -1");
  options = (NitiTrainOptions){.measure_every = -2};
  check_refused(run(&result, "run", &options), function, "options->measure_every is -2");
  options = (NitiTrainOptions){.device = {.threads = -1}};
  check_refused(run(&result, "run", &options), function, "options->device: threads is -1");
  options = (NitiTrainOptions){.device = {.threads = INT_MAX}};
  check_refused(run(&result, "run", &options), function, "options->device: threads");
  options = (NitiTrainOptions){.device = {.reserved = {0, 0, 1}}};
  check_refused(run(&result, "run", &options), function, "options->device has reserved");
  options = (NitiTrainOptions){.reserved = {0, 0, 0, UINT64_MAX}};
  check_refused(run(&result, "run", &options), function, "options has reserved");
  memset(&options, 0xa5, sizeof options);
  check_refused(run(&result, "run", &options), function, "options has reserved");
  assert_true(result.hash[0] == 0 && result.steps == 0 && result.test.images == 0);
  check_refused(run(NULL, "run", NULL), function, "out");
  check_refused(run(&result, NULL, NULL), function, "folder");
}

static NitiRecipe *toy;

static NitiStatus train_toy(NitiTrainResult *out, const char *folder, const NitiTrainOptions *options) {
  return niti_train(out, toy, folder, options);
}

typedef struct Watch {
  pthread_t caller;
  int calls;
  bool elsewhere, reserved;
} Watch;

/* Stops the run after its third step. */
static bool watch(void *context, const NitiProgress *progress) {
  static const uint64_t none[4];
  Watch *w = context;
  ++w->calls;
  w->elsewhere |= !pthread_equal(w->caller, pthread_self());
  w->reserved |= memcmp(progress->reserved, none, sizeof progress->reserved) != 0 || progress->train.reserved[0] ||
                 progress->best.reserved[1];
  return progress->kind != NITI_PROGRESS_BATCH || progress->step < 3;
}

/* What is left after the last step is its test alone, and after that nothing. */
static bool watch_left(void *context, const NitiProgress *progress) {
  int *ends = context;
  if (progress->kind == NITI_PROGRESS_BATCH) assert_true(progress->run_left >= progress->epoch_left && progress->epoch_left > 0);
  if (progress->kind != NITI_PROGRESS_BATCH && progress->kind != NITI_PROGRESS_EPOCH) return true;
  if (progress->step < progress->steps) return true;
  ++*ends;
  assert_true(progress->run_left == progress->epoch_left);
  assert_true((progress->run_left > 0) == (progress->kind == NITI_PROGRESS_BATCH));
  return true;
}

static uint8_t pixel(size_t i) { return (uint8_t)(niti_random(1, NITI_DRAW_INIT, 0, 0, i) >> 24); }
static uint8_t label(size_t i) { return (uint8_t)(i % 4); }

static const char recipe_text[] =
    "name: toy\nmodel: {name: toy, input: [8, 8, 1], classes: 4, layers: [{conv: {out: 4, kernel: 3, padding: 1}}, relu, "
    "flatten, "
    "{linear: {out: classes}}]}\nbatch: 16\nepochs: 2\nloss: softmax\n";

/* Counts calls; stops at the first test batch where `stop`. */
typedef struct Score {
  int tests;
  bool stop;
} Score;

static bool score_told(void *context, const NitiProgress *progress) {
  Score *score = context;
  if (progress->kind != NITI_PROGRESS_TEST) return true;
  ++score->tests;
  assert_true(progress->batch == score->tests && progress->batches == 4);
  return !score->stop;
}

static void a_model_counts_its_answers(const char *run) {
  const NitiDevice cpu = {.backend = "cpu", .threads = 1};
  Score told = {.stop = false};
  NitiModel *model;
  NitiScore score;
  int64_t all = 0, right = 0;
  check_ok(niti_model_open(&model, run, &cpu));
  niti_model_watch(model, score_told, &told);
  check_ok(niti_model_evaluate(model, &score, NULL));
  const int64_t *counts = niti_model_confusion(model);
  assert_true(told.tests == 4 && counts);
  for (int i = 0; i < 16; ++i) {
    all += counts[i];
    if (i % 5 == 0) right += counts[i];
  }
  assert_true(all == score.images && right == score.correct && score.images == 64);
  for (int row = 0; row < 4; ++row)
    assert_int_equal(counts[4 * row] + counts[4 * row + 1] + counts[4 * row + 2] + counts[4 * row + 3], 16);
  told = (Score){.stop = true};
  check_status(niti_model_evaluate(model, &score, NULL), NITI_INTERRUPTED, "testing");
  assert_true(told.tests == 1 && score.images == 0 && !niti_model_confusion(model));
  niti_model_watch(model, NULL, NULL);
  check_ok(niti_model_evaluate(model, &score, NULL));
  assert_true(told.tests == 1 && niti_model_confusion(model));
  niti_model_close(model);
}

static void a_run_refuses_and_keeps_its_promises(void **state) {
  char *folder = make_temp(), *data = put_idx_folder(64, 64, 8, pixel, label), *run = strdup(path_of("%s/run", folder));
  static const uint64_t none[4];
  Watch w = {.caller = pthread_self()};
  NitiTrainResult result;
  (void)state;
  put_file(path_of("%s/toy.yaml", folder), recipe_text, sizeof recipe_text - 1);
  check_ok(niti_recipe_load(&toy, path_of("%s/toy.yaml", folder), NULL, 0));

  check_refused(niti_train(&result, NULL, run, NULL), "niti_train", "recipe");
  check_refused(niti_train(&result, toy, run, &(NitiTrainOptions){.epochs = 3}), "niti_train", "options->epochs is 3");
  check_options(train_toy, "niti_train");
  check_options(niti_resume, "niti_resume");
  NitiTrainOptions options = {.device = {.backend = "cpu"}, .data = data, .progress = watch, .context = &w};
  check_status(niti_train(&result, toy, "", &options), NITI_ERROR_ARGUMENT, "empty");
  check_status(niti_resume(&result, "", &options), NITI_ERROR_ARGUMENT, "empty");
  check_status(niti_resume(&result, run, &options), NITI_ERROR_FILE, run);
  options.device.backend = "abacus";
  check_status(niti_train(&result, toy, run, &options), NITI_ERROR_UNSUPPORTED, "abacus");
  options.device.backend = "cpu";
  options.device.isa = long_name();
  check_status(niti_train(&result, toy, run, &options), NITI_ERROR_ARGUMENT, "instruction set \"xxx");
  options.device.isa = NULL;
  assert_int_equal(access(run, F_OK), -1); /* nothing was begun */

  check_status(niti_train(&result, toy, run, &options), NITI_INTERRUPTED, "step 3 of 8");
  assert_int_equal(strlen(result.hash), 64);
  assert_int_equal(result.steps, 3);
  assert_true(w.calls >= 3 && !w.elsewhere && !w.reserved);
  int ends = 0;
  options.progress = watch_left;
  options.context = &ends;
  check_ok(niti_resume(&result, run, &options));
  assert_int_equal(ends, 2);
  assert_int_equal(result.steps, 8);
  assert_true(result.shift_predictions > 0 && result.shift_retries <= result.shift_predictions);
  assert_memory_equal(result.reserved, none, sizeof result.reserved);
  assert_true(result.test.images == 64 && result.test.reserved[0] == 0);
  a_model_counts_its_answers(run);
  niti_recipe_close(toy);
  free(run);
  remove_temp(data);
  remove_temp(folder);
}

/* ---- models ---- */

static void a_model_refuses(void **state) {
  const NitiDevice cpu = {.backend = "cpu", .threads = 1};
  NitiDevice device = {.threads = -7};
  NitiModel *model = (NitiModel *)(void *)&model;
  (void)state;
  check_refused(niti_model_open(NULL, CHECKPOINT, &cpu), "niti_model_open", "out");
  check_refused(niti_model_open(&model, NULL, &cpu), "niti_model_open", "network");
  assert_null(model);
  check_refused(niti_model_open(&model, NULL, NULL), "niti_model_open", "network");
  check_refused(niti_model_open(&model, CHECKPOINT, &device), "niti_model_open", "device: threads is -7");
  device = (NitiDevice){.reserved = {1}};
  check_refused(niti_model_open(&model, CHECKPOINT, &device), "niti_model_open", "device has reserved");
  device = (NitiDevice){.backend = "abacus"};
  check_status(niti_model_open(&model, CHECKPOINT, &device), NITI_ERROR_UNSUPPORTED, "abacus");
  check_status(niti_model_open(&model, long_name(), &cpu), NITI_ERROR_ARGUMENT, "xxx");
  check_status(niti_model_open(&model, NITI_SOURCE_DIR "/include/niti.h", &cpu), NITI_ERROR_FORMAT, "niti.h");
  assert_null(model);
  niti_model_close(NULL);
}

static void an_open_model_refuses(void **state) {
  const NitiDevice cpu = {.backend = "cpu", .threads = 1};
  const uint8_t pixels[64] = {0};
  int8_t logits[4] = {77, 77, 77, 77};
  int32_t exponent = 77, hwc[3] = {7, 7, 7};
  NitiModel *model = NULL;
  NitiScore score = {.images = 77};
  (void)state;
  check_ok(niti_model_open(&model, CHECKPOINT, &cpu));

  niti_model_input(model, NULL);
  niti_model_input(NULL, NULL);
  niti_model_input(model, hwc);
  assert_true(hwc[0] == 8 && hwc[1] == 8 && hwc[2] == 1);
  niti_model_input(NULL, hwc);
  assert_true(hwc[0] == 0 && hwc[1] == 0 && hwc[2] == 0);
  assert_int_equal(niti_model_classes(NULL), 0);
  assert_int_equal(niti_model_classes(model), 4);
  assert_string_equal(niti_model_class_name(NULL, 0), "");
  assert_string_equal(niti_model_class_name(model, -1), "");
  assert_string_equal(niti_model_class_name(model, INT32_MIN), "");
  assert_string_equal(niti_model_class_name(model, 4), "");
  assert_string_equal(niti_model_class_name(model, 3), "3");

  check_refused(niti_model_predict(NULL, logits, &exponent, pixels), "niti_model_predict", "model");
  check_refused(niti_model_predict(model, NULL, &exponent, pixels), "niti_model_predict", "logits");
  check_refused(niti_model_predict(model, logits, NULL, pixels), "niti_model_predict", "exponent");
  check_refused(niti_model_predict(model, logits, &exponent, NULL), "niti_model_predict", "pixels");
  check_refused(niti_model_predict_file(NULL, logits, &exponent, "a.png"), "niti_model_predict_file", "model");
  check_refused(niti_model_predict_file(model, NULL, &exponent, "a.png"), "niti_model_predict_file", "logits");
  check_refused(niti_model_predict_file(model, logits, NULL, "a.png"), "niti_model_predict_file", "exponent");
  check_refused(niti_model_predict_file(model, logits, &exponent, NULL), "niti_model_predict_file", "path");
  check_status(niti_model_predict_file(model, logits, &exponent, long_name()), NITI_ERROR_FILE, "xxx");
  static const uint8_t bytes[4] = {'t', 'e', 'x', 't'};
  check_refused(niti_model_predict_bytes(NULL, logits, &exponent, bytes, 4, "a"), "niti_model_predict_bytes", "model");
  check_refused(niti_model_predict_bytes(model, NULL, &exponent, bytes, 4, "a"), "niti_model_predict_bytes", "logits");
  check_refused(niti_model_predict_bytes(model, logits, NULL, bytes, 4, "a"), "niti_model_predict_bytes", "exponent");
  check_refused(niti_model_predict_bytes(model, logits, &exponent, NULL, 0, "a"), "niti_model_predict_bytes", "bytes");
  check_refused(niti_model_predict_bytes(model, logits, &exponent, bytes, 4, NULL), "niti_model_predict_bytes", "name");
  check_status(niti_model_predict_bytes(model, logits, &exponent, bytes, 4, "some bytes"), NITI_ERROR_FORMAT,
               "some bytes: byte 0");
  assert_true(logits[0] == 77 && exponent == 77);
  check_ok(niti_model_predict(model, logits, &exponent, pixels));
  assert_true(exponent != 77);

  check_refused(niti_model_evaluate(NULL, &score, NULL), "niti_model_evaluate", "model");
  assert_int_equal(score.images, 0);
  check_refused(niti_model_evaluate(model, NULL, NULL), "niti_model_evaluate", "out");
  check_refused(niti_model_evaluate_split(model, &score, NULL, (NitiSplit)3), "niti_model_evaluate_split", "split is 3");
  assert_null(niti_model_data(NULL));
  assert_null(niti_model_data(model));
  assert_null(niti_model_confusion(NULL));
  assert_null(niti_model_confusion(model));
  niti_model_watch(NULL, NULL, NULL);
  niti_model_flip(NULL, true);
  niti_model_flip(model, true);
  niti_model_flip(model, false);
  niti_model_watch(model, NULL, NULL);
  check_status(niti_model_evaluate(model, &score, long_name()), NITI_ERROR_FILE, "xxx");
  assert_null(niti_model_data(model));
  niti_model_close(model);
}

static void a_hash_refuses(void **state) {
  char text[65] = "x";
  (void)state;
  check_refused(niti_model_hash(NULL, text), "niti_model_hash", "model");
  check_refused(niti_checkpoint_file_hash(NULL, text), "niti_checkpoint_file_hash", "network");
  assert_string_equal(text, "");
  check_refused(niti_checkpoint_file_hash(CHECKPOINT, NULL), "niti_checkpoint_file_hash", "text");
  check_status(niti_checkpoint_file_hash("none", text), NITI_ERROR_ARGUMENT, "none");
  check_status(niti_checkpoint_file_hash("none.safetensors", text), NITI_ERROR_FILE, "none");
  check_ok(niti_checkpoint_file_hash(CHECKPOINT, text));
  assert_int_equal(strlen(text), 64);

  const NitiDevice cpu = {.backend = "cpu"};
  NitiModel *model = NULL;
  char of_model[65];
  check_ok(niti_model_open(&model, CHECKPOINT, &cpu));
  check_refused(niti_model_hash(model, NULL), "niti_model_hash", "text");
  check_ok(niti_model_hash(model, of_model));
  assert_string_equal(of_model, text);
  niti_model_close(model);
}

static void *fail_elsewhere(void *context) {
  const bool empty = niti_error()[0] == 0;
  *(bool *)context = empty && niti_recipe_load(NULL, "elsewhere", NULL, 0) == NITI_ERROR_ARGUMENT;
  return NULL;
}

static void messages_belong_to_threads(void **state) {
  pthread_t thread;
  bool failed = false;
  char before[256];
  (void)state;
  check_refused(niti_checkpoint_file_hash(NULL, NULL), "niti_checkpoint_file_hash", "text");
  (void)snprintf(before, sizeof before, "%s", niti_error());
  assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &failed), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_true(failed);
  assert_string_equal(niti_error(), before);
}

/* A process by itself is no rank of any; one of several needs the plugin, which is not beside this program. */
static void ranks(void **state) {
  NitiRanks *none = (NitiRanks *)(uintptr_t)1;
  (void)state;
  unsetenv("OMPI_COMM_WORLD_SIZE");
  assert_int_equal(niti_ranks_open(&none, NULL, NULL), NITI_OK);
  assert_null(none);
  assert_true(niti_ranks_rank(none) == 0 && niti_ranks_agreed(none));
  niti_ranks_abort(none, 1);
  niti_ranks_close(none);
  check_refused(niti_ranks_open(NULL, NULL, NULL), "niti_ranks_open", "out");
  none = (NitiRanks *)(uintptr_t)1;
  setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  assert_int_equal(niti_ranks_open(&none, NULL, NULL), NITI_ERROR_UNSUPPORTED);
  unsetenv("OMPI_COMM_WORLD_SIZE");
  assert_null(none);
  assert_non_null(strstr(niti_error(), "libniti_mpi.so"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(versions_agree),
      cmocka_unit_test(structs_keep_their_sizes),
      cmocka_unit_test(every_function_is_called_here),
      cmocka_unit_test(arithmetic_out_of_range_is_harmless),
      cmocka_unit_test(losses_out_of_range_are_harmless),
      cmocka_unit_test(updates_sgd_out_of_range_are_harmless),
      cmocka_unit_test(fractional_mu),
      cmocka_unit_test(normalised_steps_are_of_int8_weights),
      cmocka_unit_test(clipping_out_of_range_is_harmless),
      cmocka_unit_test(rates_and_labels_out_of_range_are_harmless),
      cmocka_unit_test(norms_out_of_range_are_harmless),
      cmocka_unit_test(updates_out_of_range_are_harmless),
      cmocka_unit_test(an_input_table_refuses),
      cmocka_unit_test(probabilities_out_of_range_are_harmless),
      cmocka_unit_test(a_recipe_refuses),
      cmocka_unit_test(a_run_refuses_and_keeps_its_promises),
      cmocka_unit_test(a_model_refuses),
      cmocka_unit_test(an_open_model_refuses),
      cmocka_unit_test(a_hash_refuses),
      cmocka_unit_test(ranks),
      cmocka_unit_test(messages_belong_to_threads),
  };
  return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
