/* Evaluates images and their mirrors, and adds the logits. */
#include "train/mirror.h"

#include <stdlib.h>

#include "base/loss.h"
#include "base/round.h"

NitiStatus niti_mirror_open(NitiMirror **out, int32_t batch, int32_t classes) {
  const size_t count = (size_t)batch * (size_t)classes;
  NitiMirror *m = *out = calloc(1, sizeof *m);
  if (m) {
    m->batch = batch;
    m->classes = classes;
    m->sums = malloc(count * sizeof *m->sums);
    m->samples = malloc((size_t)batch * sizeof *m->samples);
    for (int k = 0; k < 2; ++k) m->logits[k] = malloc(count);
  }
  if (m && m->sums && m->samples && m->logits[0] && m->logits[1]) return NITI_OK;
  niti_mirror_close(m);
  *out = NULL;
  return niti_fail(NITI_ERROR_MEMORY, "out of memory for the logits of mirrored images");
}

void niti_mirror_close(NitiMirror *m) {
  if (!m) return;
  free(m->sums);
  free(m->samples);
  free(m->logits[0]);
  free(m->logits[1]);
  free(m);
}

static NitiStatus pass(NitiMirror *m, int which, NitiNetwork *net, const NitiBindings *bindings, int32_t *exponent) {
  NITI_TRY(niti_network_predict(net, bindings));
  return niti_network_read_logits(net, bindings->batch, m->logits[which], exponent);
}

NitiStatus niti_mirror_predict(NitiMirror *m, NitiNetwork *net, const NitiBindings *bindings) {
  NitiBindings mirrored = *bindings;
  int32_t exponents[2] = {0, 0};
  for (int32_t i = 0; i < bindings->batch; ++i) {
    m->samples[i] = bindings->samples[i];
    m->samples[i].flip ^= 1u;
  }
  mirrored.samples = m->samples;
  NITI_TRY(pass(m, 0, net, bindings, &exponents[0]));
  NITI_TRY(pass(m, 1, net, &mirrored, &exponents[1]));
  niti_flip_sums(m->sums, &m->exponent, m->logits[0], exponents[0], m->logits[1], exponents[1],
                 (size_t)bindings->batch * (size_t)m->classes);
  return NITI_OK;
}

NitiStatus niti_mirror_score(NitiMirror *m, NitiNetwork *net, const NitiBindings *bindings, const int32_t *labels) {
  NitiMetrics metrics, batch = {.images = bindings->batch};
  NITI_TRY(niti_mirror_predict(m, net, bindings));
  NITI_TRY(niti_network_read_metrics(net, &metrics));
  for (int32_t i = 0; i < bindings->batch; ++i) {
    const int32_t *sums = m->sums + (size_t)i * (size_t)m->classes;
    batch.loss += niti_flip_loss(sums, m->exponent, m->classes, labels[i]);
    batch.correct += niti_flip_class(sums, m->classes) == labels[i];
  }
  if (bindings->idle) batch = (NitiMetrics){0};
  if (bindings->whole > 0)
    niti_ranks_reduce(net->backend->together.ranks, &batch, sizeof batch / sizeof(int64_t), NITI_REDUCE_SUM_S64);
  metrics.loss += batch.loss;
  metrics.correct += batch.correct;
  metrics.images += batch.images;
  niti_network_write_metrics(net, &metrics);
  return NITI_OK;
}

void niti_mirror_logits(const NitiMirror *m, int32_t n, int8_t *logits, int32_t *exponent) {
  const size_t count = (size_t)n * (size_t)m->classes;
  uint32_t most = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t magnitude = (uint32_t)(m->sums[i] < 0 ? -m->sums[i] : m->sums[i]);
    most = magnitude > most ? magnitude : most;
  }
  const int shift = niti_shift_inline(most);
  for (size_t i = 0; i < count; ++i) logits[i] = niti_round_int8(m->sums[i], shift, NITI_NEAREST, 0);
  *exponent = m->exponent + shift;
}
