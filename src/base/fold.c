/* Batch norm folded into the convolution or linear layer before it: docs/arithmetic.md, "Folded norm". */
#include "base/norm.h"
#include "base/sgd.h"

/* The running statistics in real units. */
static NitiNormChannel channel_of(const NitiFoldLayer *f, int32_t c) {
  return niti_norm_running(f->running[c], f->running[f->channels + c], 0, false);
}

static NitiScalar factor_of(const NitiFoldLayer *f, int32_t c) {
  return niti_scalar_over(niti_scalar(f->norm_weight[c], f->norm_weight_exponent), channel_of(f, c).deviation);
}

static NitiScalar offset_of(const NitiFoldLayer *f, int32_t c) {
  const NitiScalar own = f->bias ? niti_scalar(f->bias[c], f->bias_exponent) : niti_scalar(0, 0);
  const NitiScalar centred = niti_scalar_add(own, niti_scalar_neg(channel_of(f, c).mean));
  return niti_scalar_add(niti_scalar_mul(centred, factor_of(f, c)), niti_scalar(f->norm_bias[c], f->norm_bias_exponent));
}

static NitiScalar magnitude(NitiScalar a) { return a.m < 0 ? niti_scalar_neg(a) : a; }

static NitiScalar larger(NitiScalar a, NitiScalar b) { return niti_scalar_less(a, b) ? b : a; }

static int64_t largest_of(const int16_t *values, int64_t count) {
  int64_t most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t size = values[i] < 0 ? -values[i] : values[i];
    most = size > most ? size : most;
  }
  return most;
}

static NitiScalar weight_range(const NitiFoldLayer *f) {
  NitiScalar range = niti_scalar(0, 0);
  for (int32_t c = 0; c < f->channels; ++c) {
    const int64_t most = largest_of(f->weight + c * f->size, f->size);
    range = larger(range, magnitude(niti_scalar_mul(niti_scalar(most, f->weight_exponent), factor_of(f, c))));
  }
  return range;
}

static NitiScalar bias_range(const NitiFoldLayer *f) {
  NitiScalar range = niti_scalar(0, 0);
  for (int32_t c = 0; c < f->channels; ++c) range = larger(range, magnitude(offset_of(f, c)));
  return range;
}

static bool in_range(int32_t exponent) { return exponent >= -1024 && exponent <= 1024; }

void niti_fold_norm(int8_t *weight, int32_t *weight_exponent, int16_t *bias, int32_t *bias_exponent, const NitiFoldLayer *f) {
  if (!weight || !weight_exponent || !bias || !bias_exponent || !f || !f->weight || !f->norm_weight || !f->norm_bias) return;
  if (!f->running || f->channels < 1 || f->size < 1 || !in_range(f->weight_exponent) || !in_range(f->bias_exponent)) return;
  if (!in_range(f->norm_weight_exponent) || !in_range(f->norm_bias_exponent)) return;
  if (!niti_norm_are_running(f->running, f->channels) || f->reserved[0] != 0 || f->reserved[1] != 0) return;
  const int32_t e = niti_norm_exponent(weight_range(f)), e_b = niti_norm_exponent(bias_range(f)) - NITI_SGD_OPERAND_SHIFT;
  for (int32_t c = 0; c < f->channels; ++c) {
    const NitiScalar factor = factor_of(f, c);
    for (int64_t i = c * f->size; i < (c + 1) * f->size; ++i) {
      const NitiScalar w = niti_scalar_mul(niti_scalar(f->weight[i], f->weight_exponent), factor);
      weight[i] = (int8_t)niti_scalar_fixed(w, e, NITI_MANTISSA_MAX);
    }
    bias[c] = (int16_t)niti_scalar_fixed(offset_of(f, c), e_b, NITI_SGD_WEIGHT_MAX);
  }
  *weight_exponent = e;
  *bias_exponent = e_b;
}
