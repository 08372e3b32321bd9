#include "train/step.h"

#include "train/optimizer.h"

static void loss(const NitiStepContext *c, bool backward) {
  NitiNetwork *net = c->net;
  net->backend->ops->loss(net->backend, backward ? &net->delta : NULL, c->metrics, &net->logits, niti_feed_labels(c->feed),
                          c->recipe->loss, &net->loss_rq);
}

NitiStatus niti_step_train(const NitiStepContext *c, const NitiBatch *batch, uint32_t step, int32_t epoch) {
  NitiBackend *backend = c->net->backend;
  backend->ops->begin_step(backend, c->recipe->seed, step);
  NITI_TRY(niti_feed_batch(c->feed, c->net, batch));               /* pixels -> input s8 */
  niti_network_forward(c->net, true);                              /* acc s32 -> requantise -> act s8 + exponent */
  loss(c, true);                                                   /* logits -> error s8 */
  niti_network_backward(c->net);                                   /* errors from last layer to first; gradients stay exact */
  niti_optimizer_update(c->net, niti_recipe_mu(c->recipe, epoch)); /* gradient -> weights */
  return backend->ops->synchronise(backend);
}

NitiStatus niti_step_test(const NitiStepContext *c, const NitiBatch *batch) {
  NITI_TRY(niti_feed_batch(c->feed, c->net, batch));
  niti_network_forward(c->net, false);
  loss(c, false);
  return c->net->backend->ops->synchronise(c->net->backend);
}
