/* Learning rates of update `sgd`: every curve against exact arithmetic or the real cosine, at its ends, with warm-up, in runs of
 * one step and of the most; what recipes may say of them, and the messages where they may not. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>

#include <cmocka.h>
/* clang-format on */

#include "train/recipe.h"

#define HEAD "name: t\nmodel: lenet5\n"                      /* two lines */
#define MOST INT64_C(4294967295)                             /* steps of a run */
#define TOP INT64_C(1000000000000)                           /* the largest rate, 1000 */
static const long double pi = 3.14159265358979323846264338L; /* <math.h> of C11 has none */

static NitiRecipe *recipe_with(const char *update) {
  char text[1024];
  NitiRecipe *r = NULL;
  (void)snprintf(text, sizeof text, HEAD "update: {kind: sgd, %s}\n", update);
  if (niti_recipe_parse(&r, text, "r.yaml", NULL, 0, NULL) != NITI_OK) fail_msg("%s", niti_error());
  return r;
}

static NitiRecipe *placed(const char *update, int64_t steps_per_epoch, int64_t steps) {
  NitiRecipe *r = recipe_with(update);
  if (niti_recipe_place(r, steps_per_epoch, steps) != NITI_OK) fail_msg("%s", niti_error());
  return r;
}

static int64_t rate(const NitiRecipe *r, int64_t step) {
  const NitiLearningRate found = niti_recipe_rate(r, step);
  assert_string_equal(found.key, "lr");
  assert_int_equal(found.places, 9);
  return found.value;
}

static void assert_rate(const NitiRecipe *r, int64_t step, int64_t expected) {
  if (rate(r, step) != expected)
    fail_msg("step %lld: %lld, expected %lld", (long long)step, (long long)rate(r, step), (long long)expected);
}

/* floor(whole * done / all), exactly. */
static int64_t share_of(int64_t whole, int64_t done, int64_t all) {
  return (int64_t)((unsigned __int128)whole * (unsigned __int128)done / (unsigned __int128)all);
}

/* ---- curves ---- */

static void decimals_are_exact(void **state) {
  static const struct {
    const char *update;
    int64_t value;
  } cases[] = {{"lr: 0.1", 100000000}, {"lr: 0.000000001", 1},         {"lr: 0.123456789", 123456789}, {"lr: 0", 0},
               {"lr: 1000", TOP},      {"lr: 999.999999999", TOP - 1}, {"momentum: 0", 100000000}};
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    NitiRecipe *r = placed(cases[i].update, 10, 100);
    assert_rate(r, 0, cases[i].value);
    assert_rate(r, 99, cases[i].value);
    niti_recipe_close(r);
  }
}

static void steps_hold_until_the_next(void **state) {
  NitiRecipe *r = placed("lr: [{epoch: 0, lr: 0.1}, {epoch: 3, lr: 0.01}, {at: 75%, lr: 0.001}]", 10, 60);
  (void)state;
  assert_rate(r, 0, 100000000);
  assert_rate(r, 29, 100000000);
  assert_rate(r, 30, 10000000);
  assert_rate(r, 44, 10000000);
  assert_rate(r, 45, 1000000);
  assert_rate(r, 59, 1000000);
  niti_recipe_close(r);
}

/* top - (top - last) x / X: q x + floor(p x / X) is floor of the whole fraction, as q x is an integer. */
static void check_linear(const char *update, int64_t top, int64_t last, int64_t steps) {
  static const int64_t parts[] = {0, 1, 2, 3, 5, 7, 11, 100};
  NitiRecipe *r = placed(update, 1, steps);
  for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i) {
    const int64_t steps_seen[] = {parts[i], steps - 1 - parts[i], steps / 101 * parts[i]};
    for (int k = 0; k < 3; ++k) {
      const int64_t x = steps_seen[k];
      if (x < 0 || x >= steps) continue;
      assert_rate(r, x, top >= last ? top - share_of(top - last, x, steps) : top + share_of(last - top, x, steps));
    }
  }
  assert_rate(r, steps, last);
  niti_recipe_close(r);
}

static void linear_is_exact(void **state) {
  (void)state;
  check_linear("schedule: linear, lr: 0.4", 400000000, 0, 40);
  check_linear("schedule: linear, lr: 0.1, final_lr: 0.001", 100000000, 1000000, 23461);
  check_linear("schedule: linear, lr: 0.1, final_lr: 0.7", 100000000, 700000000, 23461);
  check_linear("schedule: linear, lr: 0.000000001", 1, 0, 7);
  for (int64_t steps = 1; steps < 20; ++steps) check_linear("schedule: linear, lr: 1000", TOP, 0, steps);
  check_linear("schedule: linear, lr: 1000, final_lr: 0.000000001", TOP, 1, MOST);
  check_linear("schedule: linear, lr: 0, final_lr: 1000", 0, TOP, MOST);
}

/* Half a cosine from `from` to `to`. The definition's error, in parts of their difference, is at most half of: the angle's 17
 * bits (pi / 2^17), the linear interpolation (its step pi / 512 squared, by 8) and roundings below 2^-28; and two units of the
 * rate. */
static void assert_anneals(const NitiRecipe *r, int64_t step, int64_t from, int64_t to, int64_t x, int64_t all) {
  const long double share = (1 + cosl(pi * (long double)x / (long double)all)) / 2, slot = pi / 512;
  const long double real = (long double)to + (long double)(from - to) * share;
  const long double bound = (pi / 131072 + slot * slot / 8 + 4e-9L) / 2;
  const int64_t found = rate(r, step), low = from < to ? from : to, high = from < to ? to : from;
  if (fabsl((long double)found - real) > bound * (long double)(high - low) + 2)
    fail_msg("step %lld: %lld, expected %Lf", (long long)step, (long long)found, real);
  assert_true(low <= found && found <= high);
}

static void check_cosine(const char *update, int64_t top, int64_t last, int64_t steps) {
  NitiRecipe *r = placed(update, 1, steps);
  const int64_t stride = steps / 977 + 1;
  int64_t before = top;
  for (int64_t x = 0; x < steps; x += stride) {
    assert_anneals(r, x, top, last, x, steps);
    assert_true(top >= last ? rate(r, x) <= before : rate(r, x) >= before);
    before = rate(r, x);
  }
  assert_rate(r, 0, top);
  assert_rate(r, steps, last); /* where the run has ended */
  if (steps % 2 == 0) assert_rate(r, steps / 2, last + (top - last) / 2);
  niti_recipe_close(r);
}

static void cosine_is_near_the_real_one(void **state) {
  (void)state;
  check_cosine("schedule: cosine, lr: 0.1", 100000000, 0, 23460);
  check_cosine("schedule: cosine, lr: 0.1, final_lr: 0.001", 100000000, 1000000, 701);
  check_cosine("schedule: cosine, lr: 0.2, final_lr: 0.6", 200000000, 600000000, 131072);
  check_cosine("schedule: cosine, lr: 1000", TOP, 0, 1 << 20);
  check_cosine("schedule: cosine, lr: 1000, final_lr: 0.000000001", TOP, 1, MOST);
  for (int64_t steps = 1; steps < 12; ++steps) check_cosine("schedule: cosine, lr: 1000", TOP, 0, steps);
}

/* From top / 25 up along a cosine in the warm-up, 30 % by default, and down to top / 250000. */
static void check_one_cycle(const char *update, int64_t top, int64_t warm, int64_t steps) {
  NitiRecipe *r = placed(update, 1, steps);
  const int64_t stride = steps / 977 + 1;
  for (int64_t t = 0; t < warm; t += stride) assert_anneals(r, t, top / 25, top, t, warm);
  for (int64_t t = warm; t < steps; t += stride) assert_anneals(r, t, top, top / 250000, t - warm, steps - warm);
  if (warm > 0) assert_rate(r, 0, top / 25);
  assert_rate(r, warm, top);
  assert_rate(r, steps, top / 250000);
  niti_recipe_close(r);
}

static void one_cycle_rises_and_falls(void **state) {
  (void)state;
  check_one_cycle("schedule: one-cycle, lr: 0.2", 200000000, 300, 1000);
  check_one_cycle("schedule: one-cycle, lr: 0.2, warmup: {step: 7}", 200000000, 7, 1000);
  check_one_cycle("schedule: one-cycle, lr: 0.2, warmup: {step: 0}", 200000000, 0, 10);
  check_one_cycle("schedule: one-cycle, lr: 1000", TOP, 1288490188, MOST);
  check_one_cycle("schedule: one-cycle, lr: 1000", TOP, 0, 1);
  check_one_cycle("schedule: one-cycle, lr: 0.000000001", 1, 3, 10);
}

/* In step t of W the rate is (t + 1) / W of the first, rounded down, and the curve has the steps that are left. */
static void warm_up_rises_to_the_curve(void **state) {
  NitiRecipe *r = placed("lr: 0.1, warmup: {epoch: 2}", 3, 60);
  (void)state;
  for (int64_t t = 0; t < 6; ++t) assert_rate(r, t, share_of(100000000, t + 1, 6));
  assert_rate(r, 6, 100000000);
  niti_recipe_close(r);
  r = placed("schedule: linear, lr: 0.7, warmup: {at: 10%}", 3, 70);
  for (int64_t t = 0; t < 7; ++t) assert_rate(r, t, share_of(700000000, t + 1, 7));
  for (int64_t t = 7; t < 70; ++t) assert_rate(r, t, 700000000 - share_of(700000000, t - 7, 63));
  niti_recipe_close(r);
  r = placed("schedule: cosine, lr: 1000, warmup: {at: 0.999999}", 3, MOST);
  const int64_t warm = (int64_t)(999999 * (unsigned __int128)MOST / 1000000);
  assert_rate(r, 0, share_of(TOP, 1, warm));
  assert_rate(r, warm - 2, share_of(TOP, warm - 1, warm));
  assert_rate(r, warm - 1, TOP);
  assert_rate(r, warm, TOP);
  assert_anneals(r, warm + 2000, TOP, 0, 2000, MOST - warm);
  niti_recipe_close(r);
  r = placed("lr: [{step: 0, lr: 0.1}, {step: 2, lr: 0.5}], warmup: {step: 4}", 3, 10);
  assert_rate(r, 1, 50000000); /* half of what holds there */
  assert_rate(r, 2, 375000000);
  assert_rate(r, 3, 500000000);
  niti_recipe_close(r);
}

static void a_warm_up_leaves_a_step(void **state) {
  NitiRecipe *r = recipe_with("lr: 0.1, warmup: {epoch: 5}");
  (void)state;
  assert_int_equal(niti_recipe_place(r, 4, 21), NITI_OK);
  assert_int_equal(niti_recipe_place(r, 4, 20), NITI_ERROR_ARGUMENT);
  assert_string_equal(niti_error(),
                      "update: warmup: epoch 5 is step 20 of this run of 20 steps (expected an earlier one: "
                      "train longer, or shorten it, e.g. with --set 'update.warmup={at: 5%}')");
  niti_recipe_close(r);
  r = recipe_with("lr: 0.1, warmup: {at: 100%}");
  assert_int_equal(niti_recipe_place(r, 4, 1), NITI_ERROR_ARGUMENT);
  niti_recipe_close(r);
}

static void lengths_matter_where_they_do(void **state) {
  static const struct {
    const char *update;
    const char *depends;
  } cases[] = {{"lr: 0.1", NULL},
               {"lr: [{epoch: 0, lr: 0.1}, {epoch: 3, lr: 0.01}], warmup: {step: 3}", NULL},
               {"lr: [{epoch: 0, lr: 0.1}, {at: 50%, lr: 0.01}]", "update.lr has positions in shares of the run"},
               {"lr: 0.1, warmup: {at: 5%}", "update.warmup is a share of the run"},
               {"schedule: linear", "update.schedule is linear, a curve over the whole run"},
               {"schedule: cosine, warmup: {at: 5%}", "update.schedule is cosine, a curve over the whole run"},
               {"schedule: one-cycle", "update.schedule is one-cycle, a curve over the whole run"}};
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    NitiRecipe *r = recipe_with(cases[i].update);
    const char *depends = niti_recipe_depends_on_length(r);
    assert_true(!depends == !cases[i].depends);
    if (depends) assert_string_equal(depends, cases[i].depends);
    niti_recipe_close(r);
  }
}

/* ---- recipes ---- */

static void every_key_is_read_and_kept(void **state) {
  static const char update[] =
      "schedule: cosine, lr: 0.123456789, final_lr: 0.000000001, warmup: {at: 12.5%}, momentum: 0.999999999, "
      "nesterov: true, weight_decay: 0.0005, clip_norm: 2.000000001";
  NitiRecipe *r = recipe_with(update), *again = NULL;
  (void)state;
  for (int i = 0; i < 2; ++i) {
    assert_string_equal(r->optimizer->name, "sgd");
    assert_int_equal(r->rate.curve, NITI_RATE_COSINE);
    assert_true(r->rate.points.points[0].value == 123456789 && r->rate.last == 1);
    assert_true(r->rate.warmup.unit == NITI_POSITION_SHARE && r->rate.warmup.value == 125000);
    assert_true(r->momentum == 999999999 && r->decay == 500000 && r->nesterov && r->clip_norm == 2000000001);
    assert_int_equal(r->loss, NITI_LOSS_SOFTMAX);
    assert_int_equal(r->round_activation, NITI_NEAREST);
    assert_int_equal(r->round_error, NITI_STOCHASTIC_BYTE);
    if (niti_recipe_parse(&again, r->text, "again", NULL, 0, NULL) != NITI_OK) fail_msg("%s\n%s", niti_error(), r->text);
    assert_string_equal(again->text, r->text);
    niti_recipe_close(r);
    r = again;
  }
  niti_recipe_close(r);
}

static void absent_keys_have_the_documented_defaults(void **state) {
  NitiRecipe *r = recipe_with("nesterov: false");
  (void)state;
  assert_int_equal(r->rate.curve, NITI_RATE_STEPS);
  assert_true(r->rate.points.count == 1 && r->rate.points.points[0].value == 100000000);
  assert_true(r->rate.warmup.value == 0 && r->momentum == 900000000 && r->decay == 0 && r->smoothing == 0 && r->clip_norm == 0);
  assert_null(strstr(r->text, "clip_norm"));
  niti_recipe_close(r);
  r = recipe_with("schedule: one-cycle");
  assert_true(r->rate.warmup.unit == NITI_POSITION_SHARE && r->rate.warmup.value == 300000);
  niti_recipe_close(r);
  assert_int_equal(niti_recipe_parse(&r, "name: t\nmodel: resnet20\n", "r.yaml", NULL, 0, NULL), NITI_OK);
  assert_string_equal(r->optimizer->name, "sgd"); /* what trains norms */
  assert_int_equal(r->loss, NITI_LOSS_SOFTMAX);
  niti_recipe_close(r);
}

/* Update niti16: a rate in steps of int8 weights, which rises and falls; any loss. */
static void normalised_updates_have_defaults_of_their_own(void **state) {
  static const char *const texts[] = {HEAD "update: {kind: niti16}\n", HEAD "update: {kind: niti16}\nloss: niti\n",
                                      HEAD "update: {kind: niti16, schedule: one-cycle, lr: 8}\n",
                                      HEAD
                                      "update: {kind: niti16, schedule: steps, lr: [{epoch: 0, lr: 8}, {at: 50%, lr: 1}]}\n"};
  const NitiRateCurve curves[] = {NITI_RATE_LINEAR, NITI_RATE_LINEAR, NITI_RATE_ONE_CYCLE, NITI_RATE_STEPS};
  const int64_t rates[] = {4, 4, 8, 8}, warmups[] = {50000, 50000, 300000, 50000};
  (void)state;
  for (int i = 0; i < 4; ++i) {
    NitiRecipe *r = NULL, *again = NULL;
    if (niti_recipe_parse(&r, texts[i], "r.yaml", NULL, 0, NULL) != NITI_OK) fail_msg("%s", niti_error());
    assert_string_equal(r->optimizer->name, "niti16");
    assert_int_equal(r->rate.curve, curves[i]);
    assert_true(r->rate.points.points[0].value == rates[i] * 1000000000 && r->rate.warmup.value == warmups[i]);
    assert_true(r->rate.warmup.unit == NITI_POSITION_SHARE && r->momentum == 900000000 && r->decay == 0 && !r->nesterov);
    assert_int_equal(r->loss, i == 1 ? NITI_LOSS_NITI : NITI_LOSS_SOFTMAX);
    assert_int_equal(r->round_error, NITI_STOCHASTIC_BYTE);
    assert_int_equal(niti_recipe_parse(&again, r->text, "again", NULL, 0, NULL), NITI_OK);
    assert_string_equal(again->text, r->text);
    niti_recipe_close(again);
    niti_recipe_close(r);
  }
}

static void label_smoothing_is_read(void **state) {
  NitiRecipe *r = NULL;
  (void)state;
  assert_int_equal(niti_recipe_parse(&r, HEAD "loss: softmax\nlabel_smoothing: 0.123456789\n", "r.yaml", NULL, 0, NULL), NITI_OK);
  assert_true(r->smoothing == 123456789);
  assert_non_null(strstr(r->text, "label_smoothing: 0.123456789"));
  niti_recipe_close(r);
  assert_int_equal(niti_recipe_parse(&r, HEAD "label_smoothing: 0\n", "r.yaml", NULL, 0, NULL), NITI_OK);
  niti_recipe_close(r);
}

static void wrong_values_are_refused_with_their_place(void **state) {
#define SGD HEAD "update: {kind: sgd, "
  static const struct {
    const char *text, *message;
  } bad[] = {
      {SGD "mu: 4}\n",
       "r.yaml:3:21: update: unknown key 'mu' (expected: kind, lr, schedule, warmup, final_lr, momentum, nesterov, "
       "weight_decay, clip_norm)"},
      {HEAD "update: {kind: niti, lr: 0.1}\n", "r.yaml:3:22: update: unknown key 'lr' (expected: kind, mu)"},
      {SGD "lr: -0.1}\n",
       "r.yaml:3:25: update: lr: expected a decimal number from 0 to 1000 with at most 9 decimals, found '-0.1'"},
      {SGD "lr: 1000.000000001}\n", "r.yaml:3:25: update: lr: expected a decimal number from 0 to 1000"},
      {SGD "lr: 0.0000000001}\n", "r.yaml:3:25: update: lr: expected a decimal number from 0 to 1000"},
      {SGD "lr: 1e-3}\n", "r.yaml:3:25: update: lr: expected a decimal number from 0 to 1000"},
      {SGD "lr: []}\n", "r.yaml:3:25: update: lr: 0 positions (expected 1 to 32)"},
      {SGD "lr: [0.1]}\n", "r.yaml:3:26: update: lr: expected a mapping, found '0.1'"},
      {SGD "lr: [{epoch: 0, mu: 4}]}\n", "r.yaml:3:37: update: lr: unknown key 'mu' (expected: epoch, step, at, lr)"},
      {SGD "lr: [{epoch: 0}]}\n", "r.yaml:3:26: update: lr: missing key 'lr'"},
      {SGD "lr: [{epoch: 0, lr: 2000}]}\n", "r.yaml:3:41: update: lr: lr: expected a decimal number from 0 to 1000"},
      {SGD "lr: [{epoch: 2, lr: 0.1}]}\n", "r.yaml:3:26: update: lr: the first position is epoch 2 (expected 0)"},
      {SGD "schedule: cosine, lr: [{epoch: 0, lr: 0.1}]}\n",
       "r.yaml:3:43: update: lr: a list with schedule cosine (expected the highest rate)"},
      {SGD "schedule: exponential}\n",
       "r.yaml:3:31: update: schedule: expected one of: steps, linear, cosine, one-cycle, found 'exponential'"},
      {SGD "final_lr: 0.1}\n", "r.yaml:3:31: update: final_lr: only schedules linear and cosine have one"},
      {SGD "schedule: one-cycle, final_lr: 0}\n", "r.yaml:3:52: update: final_lr: only schedules linear and cosine have one"},
      {SGD "schedule: linear, final_lr: 1001}\n", "r.yaml:3:49: update: final_lr: expected a decimal number from 0 to 1000"},
      {SGD "warmup: 5}\n", "r.yaml:3:29: update: warmup: expected a mapping, found '5'"},
      {SGD "warmup: {epochs: 5}}\n", "r.yaml:3:30: update: warmup: unknown key 'epochs', did you mean 'epoch'?"},
      {SGD "warmup: {epoch: 5, step: 4}}\n", "r.yaml:3:46: update: warmup: a second position"},
      {SGD "warmup: {epoch: -1}}\n", "r.yaml:3:37: update: warmup: epoch: expected an integer from 0 to 1000000, found '-1'"},
      {SGD "warmup: {at: 101%}}\n", "r.yaml:3:34: update: warmup: at: expected a percentage from 0% to 100%"},
      {SGD "momentum: 1}\n", "r.yaml:3:31: update: momentum: expected a decimal number from 0 to 0.999999999"},
      {SGD "momentum: -0.9}\n", "r.yaml:3:31: update: momentum: expected a decimal number from 0 to 0.999999999"},
      {SGD "nesterov: 1}\n", "r.yaml:3:31: update: nesterov: expected true or false, found '1'"},
      {SGD "clip_norm: -1}\n",
       "r.yaml:3:32: update: clip_norm: expected a decimal number from 0 to 1000000 with at most 9 decimals"},
      {SGD "clip_norm: 1000000.1}\n", "r.yaml:3:32: update: clip_norm: expected a decimal number from 0 to 1000000 with"},
      {SGD "clip_norm: [1]}\n", "r.yaml:3:32: update: clip_norm: expected a decimal number"},
      {HEAD "update: {kind: niti, clip_norm: 1}\n", "r.yaml:3:22: update: unknown key 'clip_norm' (expected: kind, mu)"},
      {SGD "weight_decay: 1.1}\n", "r.yaml:3:35: update: weight_decay: expected a decimal number from 0 to 1"},
      {HEAD "loss: softmax\nlabel_smoothing: 1\n",
       "r.yaml:4:18: label_smoothing: expected a decimal number from 0 to 0.999999999"},
      {HEAD "loss: softmax\nlabel_smoothing: -0.1\n", "r.yaml:4:18: label_smoothing: expected a decimal number from 0"},
      {HEAD "loss: niti\nlabel_smoothing: 0.1\n", "r.yaml:4:18: label_smoothing: loss niti has none (expected loss: softmax)"},
      {HEAD "update: {kind: niti16, clip_norm: 1}\n",
       "r.yaml:3:24: update: unknown key 'clip_norm' (expected: kind, lr, schedule, warmup, final_lr, momentum, nesterov, "
       "weight_decay)"},
      {HEAD "update: {kind: niti16, mu: 4}\n", "r.yaml:3:24: update: unknown key 'mu' (expected: kind, lr,"},
      {HEAD "update: {kind: niti16, lr: [{epoch: 0, lr: 4}]}\n",
       "r.yaml:3:28: update: lr: a list with schedule linear (expected the highest rate)"},
      {HEAD "update: {kind: niti16, lr: 1001}\n", "r.yaml:3:28: update: lr: expected a decimal number from 0 to 1000"},
      {HEAD "loss: niti\nupdate: {kind: sgd}\n",
       "r.yaml:3:7: update sgd follows true derivatives, which loss niti does not give (expected loss: softmax)"},
  };
#undef SGD
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    NitiRecipe *r = NULL;
    const NitiStatus status = niti_recipe_parse(&r, bad[i].text, "r.yaml", NULL, 0, NULL);
    if (status != NITI_ERROR_FORMAT || strncmp(niti_error(), bad[i].message, strlen(bad[i].message)) != 0)
      fail_msg("%s\ngave status %d: %s\nexpected: %s", bad[i].text, (int)status, status ? niti_error() : "", bad[i].message);
    assert_null(r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(decimals_are_exact),
      cmocka_unit_test(steps_hold_until_the_next),
      cmocka_unit_test(linear_is_exact),
      cmocka_unit_test(cosine_is_near_the_real_one),
      cmocka_unit_test(one_cycle_rises_and_falls),
      cmocka_unit_test(warm_up_rises_to_the_curve),
      cmocka_unit_test(a_warm_up_leaves_a_step),
      cmocka_unit_test(lengths_matter_where_they_do),
      cmocka_unit_test(every_key_is_read_and_kept),
      cmocka_unit_test(absent_keys_have_the_documented_defaults),
      cmocka_unit_test(normalised_updates_have_defaults_of_their_own),
      cmocka_unit_test(label_smoothing_is_read),
      cmocka_unit_test(wrong_values_are_refused_with_their_place),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
