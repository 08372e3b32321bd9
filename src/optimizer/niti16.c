/* Update `niti16`: 16-bit masters and velocities, gradients scaled to each tensor's largest (docs/arithmetic.md). */
#include "optimizer/optimizer.h"

static void update(NitiLowering *l, int32_t weight, int32_t gradient) {
  NitiOperation o = niti_lower_wide_update(l, weight, gradient, NITI_OP_UPDATE_NITI16);
  o.sgd.normalised = true;
  niti_lower_append(l, &o);
}

const NitiOptimizer niti_optimizer_niti16 = {.name = "niti16", .wide = true, .update = update};
