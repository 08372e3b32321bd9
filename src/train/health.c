/* The signs of a learning rate that cannot work. The limits are far from what trained networks show: initial weights have 0.8 %
 * at 127 or -127, and a LeNet-5 that learns up to 17 %; at chance is within three standard deviations of guessing. A network that
 * gets nearly all images right may stop changing and have saturated weights: it is left in peace. */
#include "train/health.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/wide.h"

enum {
  LEARNED_PERCENT = 99,
  SMALL_TENSOR = 256,
  SMALL_PERCENT = 50,
  SATURATED_PERCENT = 20,
  LOGITS_PERCENT = 50,
  LOGITS_MIN = 8,
  TEXT_MAX = 512,
  MORE_THAN_INITIAL_PERCENT = 5
};

/* One tensor of weights. */
typedef struct Weight {
  NitiWeight facts;
  bool trained;   /* an operation updates it */
  bool unchanged; /* in this epoch */
  bool told_unchanged, told_saturated;
  size_t bytes;
  int8_t *before, *now; /* [bytes] */
  int64_t saturated;
} Weight;

struct NitiHealth {
  NitiNetwork *net;
  Weight *weights;      /* [net->weight_count] */
  int64_t images, most; /* training images, and of them those of the most frequent class */
  bool told_chance, told_logits, told_growth;
  NitiScore before; /* of the epoch before, where it was whole; else no images */
  NitiHealthWarn warn;
  void *context;
};

__attribute__((format(printf, 2, 3))) static void say(const NitiHealth *h, const char *format, ...) {
  char text[TEXT_MAX];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(text, sizeof text, format, args);
  va_end(args);
  h->warn(h->context, text);
}

/* "12.34" */
typedef struct Percent {
  char text[32];
} Percent;

static Percent percent(int64_t part, int64_t whole) {
  Percent out;
  const int64_t hundredths = whole > 0 ? (part * 20000 + whole) / (2 * whole) : 0;
  (void)snprintf(out.text, sizeof out.text, "%" PRId64 ".%02" PRId64, hundredths / 100, hundredths % 100);
  return out;
}

/* ---- open and close ---- */

static bool is_trained(const NitiProgram *program, int32_t tensor) {
  for (int32_t i = 0; i < program->operation_count; ++i) {
    const NitiOperation *o = &program->operations[i];
    for (size_t k = 0; o->phase == NITI_PHASE_UPDATE && k < sizeof o->outputs / sizeof *o->outputs; ++k) {
      if (o->outputs[k] == tensor) return true;
    }
  }
  return false;
}

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for watching the weights"); }

static NitiStatus count_classes(NitiHealth *h, const NitiDataset *dataset) {
  const int32_t classes = niti_dataset_classes(dataset);
  int64_t *counts = calloc((size_t)classes, sizeof *counts);
  if (!counts) return out_of_memory();
  h->images = niti_dataset_count(dataset, NITI_TRAIN);
  for (int64_t i = 0; i < h->images; ++i) ++counts[niti_dataset_label(dataset, NITI_TRAIN, i)];
  for (int32_t c = 0; c < classes; ++c) {
    if (counts[c] > h->most) h->most = counts[c];
  }
  free(counts);
  return NITI_OK;
}

static NitiStatus open_weights(NitiHealth *h) {
  h->weights = calloc((size_t)h->net->weight_count, sizeof *h->weights);
  if (!h->weights) return out_of_memory();
  for (int32_t i = 0; i < h->net->weight_count; ++i) {
    Weight *w = &h->weights[i];
    w->facts = niti_network_weight(h->net, i);
    w->trained = is_trained(h->net->program, h->net->weights[i]);
    w->bytes = w->facts.count * niti_dtype_bytes(w->facts.dtype);
    w->before = malloc(w->bytes);
    w->now = malloc(w->bytes);
    if (!w->before || !w->now) return out_of_memory();
  }
  return NITI_OK;
}

NitiStatus niti_health_open(NitiHealth **out, NitiNetwork *net, const NitiDataset *dataset) {
  *out = NULL;
  NitiHealth *h = calloc(1, sizeof *h);
  if (!h) return out_of_memory();
  h->net = net;
  NitiStatus status = count_classes(h, dataset);
  if (status == NITI_OK) status = open_weights(h);
  if (status == NITI_OK)
    *out = h;
  else
    niti_health_close(h);
  return status;
}

void niti_health_close(NitiHealth *h) {
  if (!h) return;
  for (int32_t i = 0; h->weights && i < h->net->weight_count; ++i) {
    free(h->weights[i].before);
    free(h->weights[i].now);
  }
  free(h->weights);
  free(h);
}

/* ---- an epoch ---- */

NitiStatus niti_health_begin(NitiHealth *h) {
  int32_t exponent;
  for (int32_t i = 0; i < h->net->weight_count; ++i) niti_network_get_weight(h->net, i, h->weights[i].before, &exponent);
  return h->net->backend->ops->synchronise(h->net->backend);
}

static NitiStatus look(NitiHealth *h) {
  for (int32_t i = 0; i < h->net->weight_count; ++i) {
    Weight *w = &h->weights[i];
    int32_t exponent;
    niti_network_get_weight(h->net, i, w->now, &exponent);
  }
  NITI_TRY(h->net->backend->ops->synchronise(h->net->backend));
  for (int32_t i = 0; i < h->net->weight_count; ++i) {
    Weight *w = &h->weights[i];
    w->unchanged = w->trained && memcmp(w->before, w->now, w->bytes) == 0;
    w->saturated = 0;
    for (size_t k = 0; w->facts.dtype == NITI_DTYPE_S8 && k < w->facts.count; ++k)
      w->saturated += w->now[k] == 127 || w->now[k] == -127;
  }
  return NITI_OK;
}

static void check_unchanged(const NitiHealth *h, Weight *w, const NitiEpochFacts *f) {
  if (!f->whole || f->faded || !w->unchanged || w->told_unchanged) return;
  w->told_unchanged = true;
  say(h,
      "epoch %d: layer %s: none of the %zu values of %s changed: its gradients round to nothing (learning rate too small: raise "
      "%s) or are 0 (learning rate too large before: lower it); `niti find-lr` tries several",
      f->epoch, w->facts.layer, w->facts.count, w->facts.name, f->rate);
}

static void check_saturated(const NitiHealth *h, Weight *w, const NitiEpochFacts *f) {
  const int64_t count = (int64_t)w->facts.count, limit = count < SMALL_TENSOR ? SMALL_PERCENT : SATURATED_PERCENT;
  if (!w->trained || w->told_saturated || 100 * w->saturated < limit * count) return;
  w->told_saturated = true;
  say(h,
      "epoch %d: layer %s: %s %% of its weights are saturated, at +-127: the learning rate is too large; lower %s, "
      "or try several with `niti find-lr`",
      f->epoch, w->facts.layer, percent(w->saturated, count).text, f->rate);
}

/* Within three standard deviations of always naming the most frequent class, or below it. */
static bool at_chance(const NitiHealth *h, NitiScore s) {
  const uint64_t n = (uint64_t)h->images, m = (uint64_t)h->most; /* below 2^31 */
  const NitiWide correct = niti_wide_product((uint64_t)s.correct, n), guessed = niti_wide_product(m, (uint64_t)s.images);
  if (s.images < 1 || m == n) return false;
  if (!niti_wide_less(guessed, correct)) return true;
  const NitiWide excess = niti_wide_difference(correct, guessed);
  const NitiWide limit = niti_wide_product(9 * m * (n - m), (uint64_t)s.images);
  return excess.high == 0 && !niti_wide_less(limit, niti_wide_product(excess.low, excess.low));
}

static const Weight *most_saturated(const NitiHealth *h) {
  const Weight *most = &h->weights[0];
  for (int32_t i = 1; i < h->net->weight_count; ++i) {
    const Weight *w = &h->weights[i];
    const NitiWide here = niti_wide_product((uint64_t)w->saturated, most->facts.count);
    if (niti_wide_less(niti_wide_product((uint64_t)most->saturated, w->facts.count), here)) most = w;
  }
  return most;
}

static void check_chance(NitiHealth *h, const NitiEpochFacts *f) {
  if (!f->whole || f->faded || h->told_chance || !at_chance(h, f->train)) return;
  const Weight *w = most_saturated(h);
  const int64_t count = (int64_t)w->facts.count;
  const bool much = 100 * w->saturated > MORE_THAN_INITIAL_PERCENT * count;
  h->told_chance = true;
  say(h,
      "epoch %d: training accuracy %s %% is that of guessing (the most frequent class has %s %%); most saturated is layer %s, "
      "with %s "
      "%% of its weights: %s %s, or try several with `niti find-lr`",
      f->epoch, percent(f->train.correct, f->train.images).text, percent(h->most, h->images).text, w->facts.layer,
      percent(w->saturated, count).text, much ? "lower" : "change", f->rate);
}

/* loss / images > times * that of the other, of which there are images. */
static bool exceeds(NitiScore s, NitiScore other, int times) {
  const NitiWide mine = niti_wide_product((uint64_t)s.loss, (uint64_t)other.images);
  return niti_wide_less(niti_wide_product((uint64_t)other.loss, (uint64_t)times * (uint64_t)s.images), mine);
}

/* Twice the loss of guessing and rising, although images are told apart: logits of any size, whose block exponent grows. */
static void check_growth(NitiHealth *h, const NitiEpochFacts *f) {
  const NitiProgram *program = niti_executable_program(h->net->evaluation);
  const uint64_t classes = niti_tensor_count(&program->tensors[h->net->logits], 1);
  const NitiScore guessing = {.loss = niti_log2(classes), .images = 1};
  const bool grows = f->whole && h->before.images > 0 && !at_chance(h, f->train) && exceeds(f->train, h->before, 1) &&
                     exceeds(f->train, guessing, 2);
  h->before = f->whole ? f->train : (NitiScore){0};
  if (!grows || h->told_growth) return;
  h->told_growth = true;
  say(h,
      "epoch %d: the training loss rises and is more than twice that of guessing, although training accuracy is %s %%: the "
      "logits "
      "grow without bound; lower %s, or leave out label_smoothing",
      f->epoch, percent(f->train.correct, f->train.images).text, f->rate);
}

static int64_t count_saturated(const int8_t *logits, int64_t count) {
  int64_t saturated = 0;
  for (int64_t i = 0; i < count; ++i) saturated += logits[i] == 127 || logits[i] == -127;
  return saturated;
}

static bool all_alike(const int8_t *logits, int32_t images, size_t classes) {
  for (int32_t i = 1; i < images; ++i) {
    if (memcmp(logits, logits + (size_t)i * classes, classes) != 0) return false;
  }
  return true;
}

static NitiStatus check_logits(NitiHealth *h, const NitiEpochFacts *f) {
  const NitiProgram *program = niti_executable_program(h->net->evaluation);
  const NitiTensorDesc *tensor = &program->tensors[h->net->logits];
  const char *layer = program->layers[tensor->layer];
  const int64_t classes = (int64_t)niti_tensor_count(tensor, 1), count = f->scored * classes;
  int32_t exponent;
  if (f->scored < LOGITS_MIN || h->told_logits) return NITI_OK;
  int8_t *logits = malloc((size_t)count);
  if (!logits) return out_of_memory();
  const NitiStatus status = niti_network_read_logits(h->net, f->scored, logits, &exponent);
  const int64_t saturated = status == NITI_OK ? count_saturated(logits, count) : 0;
  const bool alike = status == NITI_OK && all_alike(logits, f->scored, (size_t)classes);
  free(logits);
  h->told_logits = alike || 100 * saturated >= LOGITS_PERCENT * count;
  if (alike)
    say(h,
        "epoch %d: layer %s: the logits are the same for every image, so the network has stopped learning: start again and lower "
        "%s; `niti find-lr` tries several",
        f->epoch, layer, f->rate);
  else if (h->told_logits)
    say(h, "epoch %d: layer %s: %s %% of the logits are saturated, at +-127: lower %s, or try several with `niti find-lr`",
        f->epoch, layer, percent(saturated, count).text, f->rate);
  return status;
}

NitiStatus niti_health_end(NitiHealth *h, const NitiEpochFacts *f, NitiHealthWarn warn, void *context) {
  h->warn = warn;
  h->context = context;
  if (100 * f->train.correct >= LEARNED_PERCENT * f->train.images) return NITI_OK;
  NITI_TRY(look(h));
  check_chance(h, f);
  check_growth(h, f);
  for (int32_t i = 0; i < h->net->weight_count; ++i) {
    check_unchanged(h, &h->weights[i], f);
    check_saturated(h, &h->weights[i], f);
  }
  return check_logits(h, f);
}
