/* Integer softmax cross-entropy: the delta of the logits. */
#ifndef NITI_RT_LOSS_H
#define NITI_RT_LOSS_H

#include "niti_rt.h"

/* round(2^(j/16) * 2^62), and round((2^(j/256) - 1) * 2^36). */
RT_CONST static const uint64_t rt_exp2_coarse[16] = {
    UINT64_C(0x4000000000000000), UINT64_C(0x42d561b3e6243d8a), UINT64_C(0x45cae0f1f545eb73), UINT64_C(0x48e1e9b9d588e19b),
    UINT64_C(0x4c1bf828c6dc54b8), UINT64_C(0x4f7a993048d088d7), UINT64_C(0x52ff6b54d8a89c75), UINT64_C(0x56ac1f752150a563),
    UINT64_C(0x5a827999fcef3242), UINT64_C(0x5e8451cfac061b5f), UINT64_C(0x62b39508aa836d6f), UINT64_C(0x6712460a8fc24072),
    UINT64_C(0x6ba27e656b4eb57a), UINT64_C(0x70666f76154a7089), UINT64_C(0x75606373ee921c97), UINT64_C(0x7a92be8a92436616)};
RT_CONST static const uint32_t rt_exp2_fine[16] = {0u,          186317403u,  373139963u,  560469051u,  748306040u,  936652306u,
                                                   1125509230u, 1314878198u, 1504760598u, 1695157820u, 1886071262u, 2077502323u,
                                                   2269452406u, 2461922918u, 2654915271u, 2848430879u};

/* round(2^(i/256) * 2^30) for every i <= 256, as the tests see by comparing all. */
RT_UNUSED static uint32_t rt_exp2_entry(uint32_t i) {
  const uint64_t coarse = rt_exp2_coarse[i >> 4 & 15u];
  const uint64_t more = (coarse >> 31) * rt_exp2_fine[i & 15u];
  return (uint32_t)((coarse + (more >> 5) + ((uint64_t)1 << 31)) >> 32) << (i >> 8);
}

RT_UNUSED static uint32_t rt_exp2(uint32_t f) {
  const uint32_t i = f >> 8, rest = f & 255u, entry = rt_exp2_entry(i);
  return entry + (((rt_exp2_entry(i + 1) - entry) * rest) >> 8);
}

typedef struct rt_loss {
  uint32_t logits, delta;
  uint16_t el, ed;
  int32_t classes, softmax; /* softmax: 0: loss `niti` */
  rt_rounding rounding;
} rt_loss;

/* A logit in base 2 with 16 fraction bits. */
RT_UNUSED static int64_t rt_base2(int8_t m, int32_t exponent) {
  const int64_t t = (int64_t)m * 94548;
  if (exponent > 0) return t * ((int64_t)1 << (exponent > 16 ? 16 : exponent));
  return t >> (exponent < -40 ? 40 : -exponent);
}

RT_UNUSED static int64_t rt_top(const int8_t *logits, int32_t exponent, int32_t classes) {
  int8_t top = logits[0];
  int32_t j;
  for (j = 1; j < classes; ++j) top = logits[j] > top ? logits[j] : top;
  return rt_base2(top, exponent);
}

/* The weight p of a class whose logit is d <= 0 from the largest. */
RT_UNUSED static uint32_t rt_class_weight(const rt_loss *o, int64_t d) {
#ifdef RT_SOFTMAX
  if (o->softmax) {
    const int64_t whole = -(d >> 16);
    return rt_exp2((uint32_t)(d & 65535)) >> (whole > 31 ? 31 : whole);
  }
#endif
  (void)o;
  {
    const int64_t s = d + (10 << 16);
    return s <= 0 ? 0u : (rt_exp2((uint32_t)(s & 65535)) >> (14 - (s >> 16))) - 65536u;
  }
}

/* floor(p * 2^bits / sum), p <= sum, bit by bit. */
RT_UNUSED static uint32_t rt_share(uint32_t p, uint64_t sum, int32_t bits) {
  uint32_t q = p == sum ? 1u : 0u;
  uint64_t rest = p == sum ? 0u : p;
  for (; bits > 0; --bits) {
    const uint32_t one = 2 * rest >= sum ? 1u : 0u;
    rest = 2 * rest - (one ? sum : 0u);
    q = 2 * q + one;
  }
  return q;
}

RT_UNUSED static uint64_t rt_class_sum(const rt_loss *o, const int8_t *logits, int32_t exponent, int64_t top) {
  uint64_t sum = 0;
  int32_t j;
  for (j = 0; j < o->classes; ++j) sum += rt_class_weight(o, rt_base2(logits[j], exponent) - top);
  return sum;
}

#ifdef RT_SOFTMAX
/* What the pass over loss `softmax` needs besides. */
typedef struct rt_loss_call {
  const rt_loss *loss;
  const uint16_t *labels;
} rt_loss_call;

/* Loss `softmax`: accumulators at exponent -24. */
RT_UNUSED static void rt_softmax_pass(const rt *r, const void *operation, rt_sink *k) {
  const rt_loss_call *call = operation;
  const rt_loss *o = call->loss;
  const int32_t exponent = r->exponents[o->el];
  uint32_t index = 0;
  int32_t n, j;
  for (n = 0; n < r->n; ++n) {
    const int8_t *logits = rt_at(r, o->logits) + n * o->classes;
    const int64_t top = rt_top(logits, exponent, o->classes);
    const uint64_t sum = rt_class_sum(o, logits, exponent, top);
    for (j = 0; j < o->classes; ++j) {
      const uint32_t share = rt_share(rt_class_weight(o, rt_base2(logits[j], exponent) - top), sum, 24);
      rt_put(k, index++, (int32_t)share - (j == call->labels[n] ? 1 << 24 : 0));
    }
  }
}

#else
RT_UNUSED static void rt_loss_niti_image(const rt *r, const rt_loss *o, int32_t n, int32_t target) {
  const int32_t exponent = r->exponents[o->el];
  const int8_t *logits = rt_at(r, o->logits) + n * o->classes;
  int8_t *delta = rt_at(r, o->delta) + n * o->classes;
  const int64_t top = rt_top(logits, exponent, o->classes);
  const uint64_t sum = rt_class_sum(o, logits, exponent, top);
  RT_CONST static const rt_rounding rounding = {0, RT_STOCHASTIC, RT_DRAW_LOSS, 0};
  const rt_stream stream = rt_stream_of(r, &rounding);
  int32_t j, total = 0, own = 0;
  for (j = 0; j < o->classes; ++j) {
    const int32_t g = (int32_t)rt_share(rt_class_weight(o, rt_base2(logits[j], exponent) - top), sum, 11);
    total += g;
    if (j == target) own = g;
    delta[j] = rt_round(g, 4, RT_STOCHASTIC, rt_word(&stream, (uint32_t)(n * o->classes + j)));
  }
  delta[target] = rt_round(own - total, 4, RT_STOCHASTIC, rt_word(&stream, (uint32_t)(n * o->classes + target)));
}

#endif

/* The delta of the logits. Returns whether any of it is not 0: if none is, the step changes no weight. */
RT_COLD static int32_t rt_loss_delta(rt *r, const rt_loss *o, const uint16_t *labels) {
  const int32_t count = r->n * o->classes;
  const int8_t *delta = rt_at(r, o->delta);
  int32_t i;
#ifdef RT_SOFTMAX
  rt_loss_call call;
  rt_sink k = rt_plain_sink(r, o->delta);
  call.loss = o;
  call.labels = labels;
  r->exponents[o->ed] = rt_requantise(r, &k, rt_softmax_pass, &call, &o->rounding, (uint32_t)count, NULL) - 24;
#else
  for (i = 0; i < r->n; ++i) rt_loss_niti_image(r, o, i, labels[i]);
  r->exponents[o->ed] = 0;
#endif
  for (i = 0; i < count; ++i) {
    if (delta[i] != 0) return 1;
  }
  return 0;
}

#endif
