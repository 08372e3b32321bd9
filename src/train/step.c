#include "train/step.h"

#include "train/optimizer.h"

/* The part of a step that is the same from step to step, and may be recorded once and replayed. */
typedef struct Work {
  const NitiStepContext *context;
  int mu;
} Work;

static void loss(const NitiStepContext *c, bool backward) {
  NitiNetwork *net = c->net;
  net->backend->ops->loss(net->backend, backward ? &net->delta : NULL, c->metrics, &net->logits, niti_feed_labels(c->feed),
                          c->recipe->loss, &net->loss_rq);
}

static void train(void *work) {
  const NitiStepContext *c = ((const Work *)work)->context;
  niti_feed_input(c->feed, c->net);                        /* pixels -> input s8 */
  niti_network_forward(c->net);                            /* acc s32 -> requantise -> act s8 + exponent */
  loss(c, true);                                           /* logits -> error s8 */
  niti_network_backward(c->net);                           /* errors from last layer to first; gradients stay exact */
  niti_optimizer_update(c->net, ((const Work *)work)->mu); /* gradient -> weights */
}

static void test(void *work) {
  const NitiStepContext *c = ((const Work *)work)->context;
  niti_feed_input(c->feed, c->net);
  niti_network_forward(c->net);
  loss(c, false);
}

/* Everything outside the backend's memory that decides what `train` and `test` enqueue. */
static NitiReplayKey key_of(const NitiStepContext *c, bool training, int mu) {
  NitiShape source;
  const uint8_t *images = niti_feed_images(c->feed, &source);
  return (NitiReplayKey){
      .pointers = {c->net, c->feed, c->metrics, images},
      .numbers = {training, c->net->input.shape.n, mu, (int64_t)c->recipe->loss, source.n, source.h, source.w, source.c}};
}

NitiStatus niti_step_train(const NitiStepContext *c, const NitiBatch *batch, uint32_t step, int32_t epoch) {
  NitiBackend *backend = c->net->backend;
  Work work = {c, niti_recipe_mu(c->recipe, epoch)};
  backend->ops->begin_step(backend, c->recipe->seed, step);
  NITI_TRY(niti_feed_batch(c->feed, batch));
  niti_network_set_batch(c->net, batch->count, true);
  const NitiReplayKey key = key_of(c, true, work.mu);
  return backend->ops->replay(backend, &key, train, &work);
}

NitiStatus niti_step_test(const NitiStepContext *c, const NitiBatch *batch) {
  NitiBackend *backend = c->net->backend;
  Work work = {c, 0};
  NITI_TRY(niti_feed_batch(c->feed, batch));
  niti_network_set_batch(c->net, batch->count, false);
  const NitiReplayKey key = key_of(c, false, 0);
  return backend->ops->replay(backend, &key, test, &work);
}
