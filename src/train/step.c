/* A step: binds what changes and runs the program's phases. */
#include "train/step.h"

static NitiStatus bind(NitiBindings *b, const NitiStepContext *c, const NitiBatch *batch) {
  *b = (NitiBindings){.seed = c->recipe->seed};
  NITI_TRY(niti_feed_batch(c->feed, batch, b));
  b->whole = batch->whole;
  b->first = batch->first;
  b->idle = batch->idle;
  b->ahead = batch->ahead;
  return NITI_OK;
}

NitiStatus niti_step_train(const NitiStepContext *c, const NitiBatch *batch, uint32_t step) {
  NitiBindings b;
  NITI_TRY(bind(&b, c, batch));
  b.step = step;
  niti_recipe_scalars(b.scalars, c->recipe, c->net->program, step, niti_batch_whole(batch));
  return c->measure ? niti_measure_train(c->measure, c->net, &b) : niti_network_train(c->net, &b);
}

NitiStatus niti_step_statistics(const NitiStepContext *c, const NitiBatch *batch, uint32_t step) {
  NitiBindings b;
  NITI_TRY(bind(&b, c, batch));
  b.step = step;
  return niti_network_move_statistics(c->net, &b);
}

NitiStatus niti_step_test(const NitiStepContext *c, const NitiBatch *batch) {
  NitiBindings b;
  NITI_TRY(bind(&b, c, batch));
  return c->mirror ? niti_mirror_score(c->mirror, c->net, &b, batch->labels) : niti_network_evaluate(c->net, &b);
}
