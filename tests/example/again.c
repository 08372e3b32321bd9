/* An optimiser of existing operations: update `niti` under another name, `update: {kind: again, mu: 5}`. */
#include "optimizer/optimizer.h"

static void update(NitiLowering *l, int32_t weight, int32_t gradient) {
  NitiOperation o = niti_operation(NITI_OP_UPDATE_NITI, NITI_PHASE_UPDATE, l->program->tensors[weight].layer);
  o.inputs[0] = o.outputs[0] = weight;
  o.inputs[1] = gradient;
  o.scalar = niti_program_scalar(l->program, "mu");
  niti_lower_append(l, &o);
}

const NitiOptimizer niti_optimizer_again = {.name = "again", .update = update};
