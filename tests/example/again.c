/* An optimiser of existing operations, with a state: update `niti` of the weight, and of a tensor that starts at zero and so sums
 * up the weight's updates, `update: {kind: again, mu: 5}`. */
#include "optimizer/optimizer.h"

static void append(NitiLowering *l, int32_t target, int32_t gradient) {
  NitiOperation o = niti_operation(NITI_OP_UPDATE_NITI, NITI_PHASE_UPDATE, l->program->tensors[target].layer);
  o.inputs[0] = o.outputs[0] = target;
  o.inputs[1] = gradient;
  o.scalar = niti_program_scalar(l->program, "mu");
  niti_lower_append(l, &o);
}

static void update(NitiLowering *l, int32_t weight, int32_t gradient) {
  append(l, weight, gradient);
  append(l, niti_lower_state(l, weight, "sum", NITI_DTYPE_S8), gradient);
}

const NitiOptimizer niti_optimizer_again = {.name = "again", .update = update};
