/* Updates `sgd` and `niti16` of a whole tensor, for niti.h. */
#include "base/sgd.h"

enum { EXPONENT_MAX = 1024 };

static uint32_t largest(const int16_t *values, size_t count) {
  uint32_t max = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t magnitude = (uint32_t)(values[i] < 0 ? -values[i] : values[i]);
    max = magnitude > max ? magnitude : max;
  }
  return max;
}

static uint64_t count_above(const int16_t *values, size_t count, int32_t limit) {
  uint64_t above = 0;
  for (size_t i = 0; i < count; ++i) above += values[i] < -limit || values[i] > limit;
  return above;
}

static uint64_t largest_gradient(const int64_t *values, size_t count) {
  uint64_t max = 0;
  for (size_t i = 0; i < count; ++i) max = niti_magnitude64(values[i]) > max ? niti_magnitude64(values[i]) : max;
  return max;
}

/* What a tensor's weights alone decide. */
static NitiSgdTensor tensor_of(const int16_t *weight, size_t count) {
  return (NitiSgdTensor){.count = count,
                         .above_low = count_above(weight, count, NITI_SGD_WEIGHT_LOW),
                         .above_high = count_above(weight, count, NITI_SGD_WEIGHT_HIGH),
                         .weight_max = largest(weight, count)};
}

int niti_weight_exponent_step(const int16_t *weight, size_t count) {
  if (!weight) return 0;
  const NitiSgdTensor t = tensor_of(weight, count);
  return t.weight_max > NITI_SGD_WEIGHT_MAX ? 0 : niti_sgd_weight_exponent(&t);
}

int8_t niti_weight_operand(int16_t weight) {
  return weight < -NITI_SGD_WEIGHT_MAX || weight > NITI_SGD_WEIGHT_MAX ? 0 : niti_sgd_operand(weight);
}

static bool is_exponent(int32_t e) { return e >= -EXPONENT_MAX && e <= EXPONENT_MAX; }

/* 0, or a scalar of at most 1. */
static bool is_factor(const int64_t f[2]) {
  return (f[0] == 0 && f[1] == 0) ||
         (f[0] >> 30 == 1 && f[1] >= -EXPONENT_MAX && (f[1] < -30 || (f[1] == -30 && f[0] == 1 << 30)));
}

static bool is_step(const NitiSgdStep *s) {
  return s->reserved[0] == 0 && s->reserved[1] == 0 && is_factor(s->clip) && s->rate >= 0 &&
         s->rate <= (int64_t)1000 * NITI_SGD_UNITS && s->momentum >= 0 && s->momentum < NITI_SGD_UNITS && s->decay >= 0 &&
         s->decay <= NITI_SGD_UNITS && s->images >= 1 && s->images <= 1 << 20;
}

static void update(int16_t *weight, int32_t *weight_exponent, int16_t *velocity, int32_t *velocity_exponent,
                   const int64_t *gradient, int32_t gradient_exponent, size_t count, const NitiSgdStep *step, bool normalised) {
  if (!weight || !weight_exponent || !velocity || !velocity_exponent || !gradient || !step || !is_step(step)) return;
  NitiSgdTensor t = tensor_of(weight, count);
  t.gradient_max = largest_gradient(gradient, count);
  t.velocity_max = largest(velocity, count);
  t.gradient_exponent = gradient_exponent;
  t.velocity_exponent = *velocity_exponent;
  t.weight_exponent = *weight_exponent;
  if (t.gradient_max >> 62 || t.velocity_max > NITI_SGD_VELOCITY_MAX || t.weight_max > NITI_SGD_WEIGHT_MAX) return;
  if (!is_exponent(t.gradient_exponent) || !is_exponent(t.velocity_exponent) || !is_exponent(t.weight_exponent)) return;
  const NitiSgdSettings settings = {.rate = step->rate,
                                    .momentum = step->momentum,
                                    .decay = step->decay,
                                    .images = step->images,
                                    .nesterov = step->nesterov,
                                    .normalised = normalised,
                                    .clip = {(int32_t)step->clip[0], (int32_t)step->clip[1]}};
  const NitiDraw draw = {step->seed, NITI_DRAW_UPDATE, step->step, step->layer};
  const NitiSgd u = niti_sgd(&t, &settings);
  if (u.idle) return;
  for (size_t i = 0; i < count; ++i) niti_sgd_weight(&weight[i], &velocity[i], gradient[i], niti_draw(&draw, i), &u);
  *weight_exponent = u.weight_exponent;
  *velocity_exponent = u.velocity_exponent;
}

void niti_update_sgd(int16_t *weight, int32_t *weight_exponent, int16_t *velocity, int32_t *velocity_exponent,
                     const int64_t *gradient, int32_t gradient_exponent, size_t count, const NitiSgdStep *step) {
  update(weight, weight_exponent, velocity, velocity_exponent, gradient, gradient_exponent, count, step, false);
}

void niti_update_niti16(int16_t *weight, int32_t weight_exponent, int16_t *velocity, int32_t *velocity_exponent,
                        const int64_t *gradient, size_t count, const NitiSgdStep *step) {
  int32_t same = weight_exponent;
  if (!step || step->clip[0] != 0 || step->clip[1] != 0) return; /* a normalised gradient has no norm to clip */
  update(weight, &same, velocity, velocity_exponent, gradient, 0, count, step, true);
}
