/* The definition of the loops, one element after another; all others must agree with it. */
#include "backend/cpu/loops_largest.h"

static int64_t gradient_at(const NitiSgdRange *r, size_t i) {
  return r->bits == 32 ? ((const int32_t *)r->gradient)[i] : ((const int64_t *)r->gradient)[i];
}

static void sgd(const NitiSgdRange *r, const NitiSgd *step, const NitiDraw *draw) {
  for (size_t i = 0; i < r->count; i += 4) {
    const NitiWords words = niti_draw_block(draw, (uint32_t)((r->first + i) / 4));
    for (size_t k = 0; k < 4 && i + k < r->count; ++k)
      niti_sgd_weight(&r->weight[i + k], &r->velocity[i + k], gradient_at(r, i + k), words.word[k], step);
  }
  for (size_t i = 0; r->operand && i < r->count; ++i) r->operand[i] = niti_sgd_operand(r->weight[i]);
}

const NitiLoops niti_loops_ref = {.largest16 = largest16, .largest32 = largest32, .largest64 = largest64, .sgd = sgd};
