/* Integer softmax cross-entropy, distributed over the images of a batch. */
#include "base/loss.h"

#include "backend/cpu/chunk.h"
#include "backend/cpu/requantise.h"
#include "base/mix.h"
#include "base/softmax.h"

typedef struct Loss {
  NitiCpu *cpu;
  int8_t *delta;
  NitiMetrics *metrics;
  const int8_t *logits;
  const int32_t *labels;
  int32_t exponent;
  int classes, off;
  size_t images;
  uint64_t first; /* the index in the whole batch of the first logit */
  NitiRequantiseKernel kernel;
  const NitiRounder *rounder;
  uint32_t max;
} Loss;

static bool is_correct(const int8_t *logits, int classes, int target) {
  for (int j = 0; j < target; ++j) {
    if (logits[j] >= logits[target]) return false;
  }
  for (int j = target + 1; j < classes; ++j) {
    if (logits[j] > logits[target]) return false;
  }
  return true;
}

/* Integer sums: the order in which threads add makes no difference. */
static void metrics_image(void *context, size_t thread, size_t n) {
  const Loss *l = context;
  const int8_t *logits = l->logits + n * (size_t)l->classes;
  const int target = niti_label_class(l->labels[n]);
  (void)thread;
  __atomic_fetch_add(&l->metrics->loss, niti_loss_value(logits, l->exponent, l->classes, target), __ATOMIC_RELAXED);
  __atomic_fetch_add(&l->metrics->correct, is_correct(logits, l->classes, target), __ATOMIC_RELAXED);
}

static void niti_image(void *context, size_t thread, size_t n) {
  const Loss *l = context;
  const size_t index = n * (size_t)l->classes;
  (void)thread;
  niti_loss_niti(l->delta + index, l->logits + index, l->exponent, l->classes, niti_label_class(l->labels[n]), l->cpu->seed,
                 l->cpu->step, l->first + index);
}

static void softmax_image(void *context, size_t thread, size_t n) {
  Loss *l = context;
  const size_t index = n * (size_t)l->classes;
  const int8_t *logits = l->logits + index;
  NitiSoftmax softmax = niti_softmax_sum(logits, l->exponent, l->classes);
  niti_softmax_expect(&softmax, l->off, l->classes, l->labels[n], l->labels[niti_mixed_in(&l->cpu->base, n, l->images)]);
  int32_t acc[NITI_ACC_CHUNK];
  uint32_t max = 0;
  (void)thread;
  for (int first = 0; first < l->classes; first += NITI_ACC_CHUNK) {
    const int count = l->classes - first < NITI_ACC_CHUNK ? l->classes - first : NITI_ACC_CHUNK;
    const size_t at = index + (size_t)first;
    niti_softmax_acc(acc, &softmax, logits, first, count, niti_label_class(l->labels[n]));
    max = l->kernel(l->delta + at, acc, (size_t)count, l->rounder, at, max);
  }
  niti_max_raise((_Atomic uint32_t *)&l->max, max);
}

static uint32_t softmax_images(void *context, const NitiRounder *rounder) {
  Loss *l = context;
  l->rounder = rounder;
  l->max = 0;
  niti_threads_run(l->cpu->threads, softmax_image, l, l->images);
  return l->max;
}

/* Adds the batch's metrics of all ranks; of a step that trains they travel until its sums are waited for. */
static void share_metrics(NitiCpu *cpu, NitiMetrics *metrics, NitiMetrics *batch, bool trains) {
  const size_t count = sizeof *batch / sizeof(int64_t);
  if (trains && cpu->base.together.whole > 0) {
    cpu->batch = *batch;
    cpu->metrics = metrics;
    niti_cpu_all_sum_begin(&cpu->base, &cpu->batch, count, 64);
  } else {
    niti_cpu_all_sum(&cpu->base, batch, count, 64);
    niti_cpu_add_metrics(metrics, batch);
  }
}

void niti_cpu_loss(NitiBackend *backend, NitiTensor *delta, NitiMetrics *metrics, const NitiTensor *logits, const int32_t *labels,
                   NitiLoss loss, const NitiRequantise *rq) {
  NitiCpu *cpu = niti_cpu(backend);
  NitiMetrics batch = {.images = logits->shape.n};
  Loss l = {.cpu = cpu,
            .delta = delta ? delta->data : NULL,
            .metrics = &batch,
            .logits = logits->data,
            .labels = labels,
            .exponent = *logits->exponent,
            .off = loss.off,
            .classes = (int)niti_shape_image(logits->shape),
            .images = (size_t)logits->shape.n,
            .first = niti_cpu_first(cpu, niti_shape_image(logits->shape)),
            .kernel = cpu->requantise};
  niti_threads_run(cpu->threads, metrics_image, &l, l.images);
  share_metrics(cpu, metrics, &batch, delta != NULL);
  if (!delta) return;
  if (loss.kind == NITI_LOSS_NITI) {
    niti_threads_run(cpu->threads, niti_image, &l, l.images);
    *delta->exponent = 0;
  } else {
    *delta->exponent = niti_cpu_requantise(cpu, rq, false, NULL, softmax_images, &l) - 24;
  }
}
