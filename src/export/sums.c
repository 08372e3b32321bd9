/* Sums, one after another. */
#include "export/sums.h"

#include <stdlib.h>

#include "base/align.h"
#include "base/bias.h"
#include "base/loss.h"
#include "base/mix.h"
#include "base/norm.h"
#include "base/pool.h"
#include "export/plan.h"

bool niti_has_sums(const NitiOperation *o) {
  switch (o->opcode) {
    case NITI_OP_CONV_FORWARD:
    case NITI_OP_CONV_BACKWARD:
    case NITI_OP_CONV_GRADIENT:
    case NITI_OP_MAXPOOL_BACKWARD:
    case NITI_OP_AVGPOOL_FORWARD:
    case NITI_OP_AVGPOOL_BACKWARD:
    case NITI_OP_NORM_FORWARD:
    case NITI_OP_NORM_BACKWARD:
    case NITI_OP_ADD: return true;
    case NITI_OP_LOSS: return niti_export_is_softmax(o);
    default: return false;
  }
}

/* Calls for every product of a convolution: output position (n, oy, ox, k) meets input (n, iy, ix, c) at a tap. */
typedef struct Tap {
  size_t x, w, y; /* flat indices */
} Tap;

typedef void (*EachTap)(int64_t *sums, const int8_t *a, const int8_t *b, Tap tap);

static void forward_tap(int64_t *sums, const int8_t *x, const int8_t *w, Tap t) { sums[t.y] += x[t.x] * w[t.w]; }
static void backward_tap(int64_t *sums, const int8_t *dy, const int8_t *w, Tap t) { sums[t.x] += dy[t.y] * w[t.w]; }
static void gradient_tap(int64_t *sums, const int8_t *dy, const int8_t *x, Tap t) { sums[t.w] += dy[t.y] * x[t.x]; }

static void window_taps(int64_t *sums, const NitiConv *c, const int8_t *a, const int8_t *b, EachTap each, size_t n, int32_t oy,
                        int32_t ox) {
  const size_t y = ((n * (size_t)c->oh + (size_t)oy) * (size_t)c->ow + (size_t)ox) * (size_t)c->k;
  const size_t inputs = (size_t)niti_conv_group_inputs(c), outputs = (size_t)niti_conv_group_outputs(c);
  for (int32_t ky = 0; ky < c->kh; ++ky) {
    for (int32_t kx = 0; kx < c->kw; ++kx) {
      const int32_t iy = oy * c->stride_h - c->pad_h + ky, ix = ox * c->stride_w - c->pad_w + kx;
      if (iy < 0 || ix < 0 || iy >= c->h || ix >= c->w) continue;
      const size_t x = ((n * (size_t)c->h + (size_t)iy) * (size_t)c->w + (size_t)ix) * (size_t)c->c;
      for (size_t k = 0; k < (size_t)c->k; ++k) {
        const size_t w = ((k * (size_t)c->kh + (size_t)ky) * (size_t)c->kw + (size_t)kx) * inputs, own = k / outputs * inputs;
        for (size_t i = 0; i < inputs; ++i) each(sums, a, b, (Tap){x + own + i, w + i, y + k});
      }
    }
  }
}

static void conv_sums(int64_t *sums, const NitiConv *c, const int8_t *a, const int8_t *b, EachTap each, int32_t images) {
  for (size_t n = 0; n < (size_t)images; ++n) {
    for (int32_t oy = 0; oy < c->oh; ++oy) {
      for (int32_t ox = 0; ox < c->ow; ++ox) window_taps(sums, c, a, b, each, n, oy, ox);
    }
  }
}

/* A bias, or less the running means. */
static void add_bias(int64_t *sums, const NitiSumOperands *in, size_t count, size_t channels) {
  const int16_t *bias = in->input[2];
  const int64_t *means = in->input[2];
  const int32_t exponent = in->exponent[0] + in->exponent[1];
  for (size_t i = 0; i < count && in->input[2]; ++i) {
    const size_t k = i % channels;
    sums[i] += in->centred ? niti_norm_centre(means[k], exponent) : niti_bias_at(bias[k], in->exponent[2] - exponent);
  }
}

static void norm_sums(int64_t *sums, const NitiSumOperands *in, size_t count, size_t channels, bool forward) {
  const int8_t *a = in->input[0], *b = in->input[1];
  const NitiAffine *map = in->input[1];
  const NitiAffineDelta *delta = in->input[2];
  for (size_t i = 0; i < count; ++i) {
    const size_t c = i % channels;
    sums[i] = forward ? (int64_t)map[c].factor * a[i] + map[c].offset
                      : (int64_t)delta[c].factor * a[i] + (int64_t)delta[c].slope * b[i] + delta[c].offset;
  }
}

/* winner NULL: averages. to_windows: sums over each window; else each window's value to its cells. */
static void pool_sums(int64_t *sums, const NitiPool *p, const int8_t *from, const uint8_t *winner, bool to_windows,
                      int32_t images) {
  const int32_t factor = winner ? 1 : niti_reciprocal(p->kh * p->kw).factor;
  size_t window = 0;
  for (int32_t n = 0; n < images; ++n) {
    for (int32_t oy = 0; oy < p->oh; ++oy) {
      for (int32_t ox = 0; ox < p->ow; ++ox) {
        for (int32_t c = 0; c < p->c; ++c, ++window) {
          for (int32_t cell = 0; cell < p->kh * p->kw; ++cell) {
            const int32_t iy = oy * p->stride_h - p->pad_h + cell / p->kw, ix = ox * p->stride_w - p->pad_w + cell % p->kw;
            if (iy < 0 || ix < 0 || iy >= p->h || ix >= p->w || (winner && winner[window] != cell)) continue;
            const size_t at = (((size_t)n * (size_t)p->h + (size_t)iy) * (size_t)p->w + (size_t)ix) * (size_t)p->c + (size_t)c;
            sums[to_windows ? window : at] += from[to_windows ? at : window] * factor;
          }
        }
      }
    }
  }
}

static void add_sums(int64_t *sums, const NitiSumOperands *in, size_t count) {
  const NitiAlignment m = niti_align(in->exponent[0], in->exponent[1]);
  const int8_t *a = in->input[0], *b = in->input[1];
  for (size_t i = 0; i < count; ++i)
    sums[i] = niti_align_sum(m.a_larger ? a[i] : b[i], m.a_larger ? b[i] : a[i], m.left, m.right);
}

static bool loss_sums(int64_t *sums, const NitiSumOperands *in, int32_t off, size_t count, int32_t images) {
  const int classes = (int)(count / (size_t)images);
  int32_t *acc = malloc((size_t)classes * sizeof *acc);
  for (int32_t n = 0; n < images && acc; ++n) {
    const int8_t *logits = (const int8_t *)in->input[0] + (size_t)n * (size_t)classes;
    const int32_t label = in->labels[n], next = in->labels[(n + 1) % images];
    NitiSoftmax softmax = niti_softmax_sum(logits, in->exponent[0], classes);
    niti_softmax_expect(&softmax, off, classes, label, next);
    niti_softmax_acc(acc, &softmax, logits, 0, classes, niti_label_class(label));
    for (int j = 0; j < classes; ++j) sums[(size_t)n * (size_t)classes + (size_t)j] = acc[j];
  }
  free(acc);
  return acc != NULL;
}

/* Of a norm. */
static size_t channels_of(const NitiOperation *o, size_t count, int32_t images) {
  return count / ((size_t)images * (size_t)o->norm.positions);
}

bool niti_sums(int64_t *sums, const NitiOperation *o, const NitiSumOperands *in, size_t count, int32_t n) {
  const int8_t *a = in->input[0], *b = in->input[1];
  for (size_t i = 0; i < count; ++i) sums[i] = 0;
  switch (o->opcode) {
    case NITI_OP_CONV_FORWARD:
      conv_sums(sums, &o->conv, a, b, forward_tap, n);
      add_bias(sums, in, count, (size_t)o->conv.k);
      break;
    case NITI_OP_CONV_BACKWARD: conv_sums(sums, &o->conv, a, b, backward_tap, n); break;
    case NITI_OP_CONV_GRADIENT: conv_sums(sums, &o->conv, a, b, gradient_tap, n); break;
    case NITI_OP_MAXPOOL_BACKWARD: pool_sums(sums, &o->pool, a, in->input[1], false, n); break;
    case NITI_OP_AVGPOOL_FORWARD: pool_sums(sums, &o->pool, a, NULL, true, n); break;
    case NITI_OP_AVGPOOL_BACKWARD: pool_sums(sums, &o->pool, a, NULL, false, n); break;
    case NITI_OP_NORM_FORWARD: norm_sums(sums, in, count, channels_of(o, count, n), true); break;
    case NITI_OP_NORM_BACKWARD: norm_sums(sums, in, count, channels_of(o, count, n), false); break;
    case NITI_OP_ADD: add_sums(sums, in, count); break;
    case NITI_OP_LOSS: return loss_sums(sums, in, o->loss.off, count, n);
    default: break;
  }
  return true;
}
