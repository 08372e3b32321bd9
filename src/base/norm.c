/* Batch norm of a whole tensor, value by value, for niti.h. */
#include "base/norm.h"

#include "base/random.h"
#include "base/scalar_form.h"

enum { EXPONENT_MAX = 1024 };

static bool is_layer(const NitiNormLayer *n, int32_t x_exponent) {
  const bool exponents = x_exponent >= -EXPONENT_MAX && x_exponent <= EXPONENT_MAX && n->weight_exponent >= -EXPONENT_MAX &&
                         n->weight_exponent <= EXPONENT_MAX && n->bias_exponent >= -EXPONENT_MAX &&
                         n->bias_exponent <= EXPONENT_MAX;
  return exponents && n->reserved[0] == 0 && n->reserved[1] == 0 && n->weight && n->count >= 1 &&
         n->count <= 1 << NITI_NORM_COUNT_LOG2 && n->channels >= 1 && (unsigned)n->rounding <= NITI_STOCHASTIC_BYTE;
}

static NitiNormSums sums_of(const NitiNormLayer *n, const int8_t *x, int32_t c) {
  NitiNormSums s = {0, 0};
  for (int64_t i = 0; i < n->count; ++i) {
    const int64_t v = x[i * n->channels + c];
    s.x += v;
    s.xx += v * v;
  }
  return s;
}

static NitiNormDeltaSums delta_sums_of(const NitiNormLayer *n, const int8_t *dy, const int8_t *x, int32_t c) {
  NitiNormDeltaSums s = {0, 0, 0};
  for (int64_t i = 0; i < n->count; ++i) {
    const int64_t d = dy[i * n->channels + c];
    s.d += d;
    s.dx += d * x[i * n->channels + c];
    s.dd += d * d;
  }
  return s;
}

static int8_t rounded(int64_t acc, const NitiNormLayer *n, const NitiDraw *draw, int64_t index) {
  return niti_clip8(
      niti_round_inline(acc, NITI_NORM_FRACTION, n->rounding, niti_rounding_word(draw, n->rounding, (uint64_t)index)));
}

static int32_t output_exponent(const NitiNormLayer *n) {
  NitiScalar range = {0, 0};
  for (int32_t c = 0; c < n->channels; ++c) {
    const NitiScalar own = niti_norm_range(n->weight[c], n->weight_exponent, n->bias[c], n->bias_exponent);
    if (niti_scalar_less(range, own)) range = own;
  }
  return niti_norm_exponent(range);
}

static NitiScalar scaled(NitiScalar a, int32_t e) {
  if (a.m != 0) a.e += e;
  return a;
}

static void move_running(int64_t *mean, int64_t *variance, const NitiNormChannel *batch, int32_t exponent, bool centred) {
  const NitiScalar now = scaled(batch->mean, exponent);
  *mean = centred ? niti_norm_run_centred(*mean, now) : niti_norm_run(*mean, now);
  *variance = niti_norm_run(*variance, scaled(batch->variance, 2 * exponent));
}

/* running NULL: of the batch x. */
static NitiNormChannel channel_of(const NitiNormLayer *n, const int64_t *running, const int8_t *x, int32_t x_exponent,
                                  int32_t c) {
  const NitiNormCount count = niti_norm_count(n->count);
  return running ? niti_norm_running(running[c], running[n->channels + c], x_exponent, n->centred)
                 : niti_norm_batch(sums_of(n, x, c), &count, x_exponent);
}

static NitiAffine affine_of(const NitiNormLayer *n, const NitiNormChannel *channel, int32_t y_exponent, int32_t c) {
  return niti_norm_affine(channel, n->weight[c], n->weight_exponent, n->bias[c], n->bias_exponent, y_exponent);
}

void niti_norm_forward(int8_t *y, int32_t *y_exponent, int64_t *running, const NitiNormLayer *layer, bool training,
                       const int8_t *x, int32_t x_exponent) {
  if (!y || !y_exponent || !running || !layer || !x || !is_layer(layer, x_exponent) || !layer->bias) return;
  if (!niti_norm_are_running(running, layer->channels)) return;
  const NitiDraw draw = {layer->seed, NITI_DRAW_ROUND_ACT, layer->step, layer->layer};
  *y_exponent = output_exponent(layer);
  for (int32_t c = 0; c < layer->channels; ++c) {
    int64_t *mean = &running[c], *variance = &running[layer->channels + c];
    const NitiNormChannel channel = channel_of(layer, training ? NULL : running, x, x_exponent, c);
    const NitiAffine a = affine_of(layer, &channel, *y_exponent, c);
    if (training) move_running(mean, variance, &channel, x_exponent, layer->centred);
    for (int64_t i = c; i < layer->count * layer->channels; i += layer->channels)
      y[i] = rounded((int64_t)a.factor * x[i] + a.offset, layer, &draw, i);
  }
}

/* The arguments of the two functions below. */
static bool is_known(const NitiNormLayer *layer, const int64_t *running, const int8_t *x, int32_t x_exponent) {
  return layer && is_layer(layer, x_exponent) && (running ? niti_norm_are_running(running, layer->channels) : x != NULL);
}

void niti_norm_statistics(int64_t *mean, int64_t *variance, int64_t *deviation, const int64_t *running,
                          const NitiNormLayer *layer, const int8_t *x, int32_t x_exponent) {
  if (!mean || !variance || !deviation || !is_known(layer, running, x, x_exponent)) return;
  for (int64_t c = 0; c < layer->channels; ++c) {
    const NitiNormChannel channel = channel_of(layer, running, x, x_exponent, (int32_t)c);
    niti_scalar_out(mean + 2 * c, channel.mean);
    niti_scalar_out(variance + 2 * c, channel.variance);
    niti_scalar_out(deviation + 2 * c, channel.deviation.of);
  }
}

static bool can_move(int64_t running, const int64_t *now) {
  return now && niti_is_scalar(now) && running >= -NITI_NORM_RUNNING_MAX && running <= NITI_NORM_RUNNING_MAX;
}

int64_t niti_norm_move(int64_t running, const int64_t *now) {
  return can_move(running, now) ? niti_norm_run(running, niti_scalar_in(now)) : 0;
}

int64_t niti_norm_move_centred(int64_t running, const int64_t *now) {
  return can_move(running, now) ? niti_norm_run_centred(running, niti_scalar_in(now)) : 0;
}

void niti_norm_centring(int32_t *bias, const int64_t *running, int32_t channels, int32_t exponent) {
  if (!bias || !running || exponent < -EXPONENT_MAX || exponent > EXPONENT_MAX) return;
  for (int32_t c = 0; c < channels; ++c) {
    if (running[c] < -NITI_NORM_RUNNING_MAX || running[c] > NITI_NORM_RUNNING_MAX) return;
  }
  for (int32_t c = 0; c < channels; ++c) bias[c] = niti_norm_centre(running[c], exponent);
}

void niti_norm_factors(int32_t *factor, int32_t *offset, int32_t *y_exponent, const int64_t *running, const NitiNormLayer *layer,
                       const int8_t *x, int32_t x_exponent) {
  if (!factor || !offset || !y_exponent || !is_known(layer, running, x, x_exponent) || !layer->bias) return;
  *y_exponent = output_exponent(layer);
  for (int32_t c = 0; c < layer->channels; ++c) {
    const NitiNormChannel channel = channel_of(layer, running, x, x_exponent, c);
    const NitiAffine a = affine_of(layer, &channel, *y_exponent, c);
    factor[c] = a.factor;
    offset[c] = a.offset;
  }
}

/* What is known of a channel before the deltas' range is. */
static NitiNormDelta delta_of(NitiNormChannel *channel, const NitiNormLayer *n, const int8_t *dy, const int8_t *x,
                              int32_t x_exponent, int32_t c) {
  const NitiNormSums s = sums_of(n, x, c);
  const NitiNormCount count = niti_norm_count(n->count);
  *channel = niti_norm_batch(s, &count, x_exponent);
  return niti_norm_delta(channel, s, delta_sums_of(n, dy, x, c), &count, n->weight[c], n->weight_exponent);
}

/* Of the channels' squares the largest exponent, and then their sum at it. */
static NitiSquares squares_of(const NitiNormLayer *n, const int8_t *dy, const int8_t *x, int32_t x_exponent) {
  NitiSquares s = {0, NITI_SQUARES_NONE};
  NitiNormChannel channel;
  for (int32_t c = 0; c < n->channels; ++c)
    s.exponent = niti_squares_exponent(s.exponent, delta_of(&channel, n, dy, x, x_exponent, c).square);
  for (int32_t c = 0; c < n->channels; ++c)
    s.sum += niti_squares_share(s.exponent, delta_of(&channel, n, dy, x, x_exponent, c).square);
  return s;
}

/* The results' exponent, relative to the deltas'. */
static int32_t own_exponent(const NitiNormLayer *n, const int8_t *dy, const int8_t *x, int32_t x_exponent) {
  return niti_norm_delta_exponent(squares_of(n, dy, x, x_exponent), niti_scalar_divisor(niti_scalar32(n->channels, 0)));
}

static bool are_deltas(const NitiNormLayer *layer, const int8_t *dy, int32_t dy_exponent, const int8_t *x, int32_t x_exponent) {
  return layer && dy && x && is_layer(layer, x_exponent) && dy_exponent >= -EXPONENT_MAX && dy_exponent <= EXPONENT_MAX;
}

void niti_norm_delta_factors(int32_t *factor, int32_t *slope, int32_t *offset, int32_t *dx_exponent, const NitiNormLayer *layer,
                             const int8_t *dy, int32_t dy_exponent, const int8_t *x, int32_t x_exponent) {
  if (!factor || !slope || !offset || !dx_exponent || !are_deltas(layer, dy, dy_exponent, x, x_exponent)) return;
  const int32_t own = own_exponent(layer, dy, x, x_exponent);
  *dx_exponent = own + dy_exponent - x_exponent;
  for (int32_t c = 0; c < layer->channels; ++c) {
    NitiNormChannel channel;
    const NitiNormDelta d = delta_of(&channel, layer, dy, x, x_exponent, c);
    const NitiAffineDelta a = niti_norm_affine_delta(&d, &channel, own - NITI_NORM_FRACTION);
    factor[c] = a.factor;
    slope[c] = a.slope;
    offset[c] = a.offset;
  }
}

void niti_norm_backward(int8_t *dx, int32_t *dx_exponent, int64_t *weight_gradient, int64_t *bias_gradient,
                        const NitiNormLayer *layer, const int8_t *dy, int32_t dy_exponent, const int8_t *x, int32_t x_exponent) {
  if (!dx || !dx_exponent || !weight_gradient || !bias_gradient || !are_deltas(layer, dy, dy_exponent, x, x_exponent)) return;
  const NitiDraw draw = {layer->seed, NITI_DRAW_ROUND_DELTA, layer->step, layer->layer};
  const int32_t own = own_exponent(layer, dy, x, x_exponent);
  const NitiNormCount count = niti_norm_count(layer->count);
  *dx_exponent = own + dy_exponent - x_exponent;
  for (int32_t c = 0; c < layer->channels; ++c) {
    NitiNormChannel channel;
    const NitiNormDelta d = delta_of(&channel, layer, dy, x, x_exponent, c);
    const NitiAffineDelta a = niti_norm_affine_delta(&d, &channel, own - NITI_NORM_FRACTION);
    const NitiNormSums s = sums_of(layer, x, c);
    const NitiNormDeltaSums t = delta_sums_of(layer, dy, x, c);
    weight_gradient[c] = niti_norm_gradient(&channel, s, t, &count);
    bias_gradient[c] = t.d;
    for (int64_t i = c; i < layer->count * layer->channels; i += layer->channels)
      dx[i] = rounded((int64_t)a.factor * dy[i] + (int64_t)a.slope * x[i] + a.offset, layer, &draw, i);
  }
}
