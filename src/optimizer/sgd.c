/* Update `sgd`: 16-bit masters and velocities, at the gradient's true scale (docs/arithmetic.md). */
#include "optimizer/optimizer.h"

/* Which of its layer's trained tensors this is: part of its random numbers. */
static uint32_t ordinal(const NitiProgram *p, int32_t weight) {
  uint32_t before = 0;
  for (int32_t t = 0; t < weight; ++t)
    before += p->tensors[t].role == NITI_ROLE_WEIGHT && p->tensors[t].layer == p->tensors[weight].layer;
  return before;
}

/* Clipping by norm: adds the gradient's squares to the sum. */
static void look(NitiLowering *l, int32_t weight, int32_t gradient) {
  NitiOperation o = niti_operation(NITI_OP_GRADIENT_SQUARES, NITI_PHASE_UPDATE, l->program->tensors[weight].layer);
  if (!l->clips_norm) return;
  o.inputs[0] = l->squares;
  o.inputs[1] = gradient;
  o.outputs[0] = l->squares = niti_lower_scalar(l, weight, "squares");
  niti_lower_append(l, &o);
}

NitiOperation niti_lower_wide_update(NitiLowering *l, int32_t weight, int32_t gradient, NitiOpcode opcode) {
  NitiProgram *p = l->program;
  const int32_t layer = p->tensors[weight].layer;
  const bool operand = p->tensors[weight].dtype == NITI_DTYPE_S8;
  NitiOperation o = niti_operation(opcode, NITI_PHASE_UPDATE, layer);
  o.inputs[0] = o.outputs[0] = weight;
  o.inputs[1] = gradient;
  if (operand) {
    o.inputs[2] = o.outputs[2] = niti_lower_state(l, weight, "master", NITI_DTYPE_S16);
    p->tensors[o.inputs[2]].initial = NITI_INITIAL_MASTER;
  }
  o.inputs[3] = o.outputs[3] = niti_lower_state(l, weight, "velocity", NITI_DTYPE_S16);
  o.sgd = (NitiSgdScalars){.rate = niti_program_scalar(p, "rate"),
                           .momentum = niti_program_scalar(p, "momentum"),
                           .decay = operand ? niti_program_scalar(p, "decay") : NITI_NONE,
                           .images = NITI_NONE,
                           .clip = NITI_NONE,
                           .nesterov = l->nesterov};
  o.rounding = (NitiRoundingRecord){NITI_STOCHASTIC, NITI_DRAW_UPDATE, (uint32_t)layer + 65536u * ordinal(p, weight), 0};
  return o;
}

static void update(NitiLowering *l, int32_t weight, int32_t gradient) {
  NitiOperation o = niti_lower_wide_update(l, weight, gradient, NITI_OP_UPDATE_SGD);
  o.inputs[4] = l->squares;
  o.sgd.images = niti_program_scalar(l->program, "images");
  if (l->clips_norm) o.sgd.clip = niti_program_scalar(l->program, "clip");
  niti_lower_append(l, &o);
}

const NitiOptimizer niti_optimizer_sgd = {.name = "sgd", .wide = true, .true_scale = true, .look = look, .update = update};
