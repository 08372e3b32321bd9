/* niti bench kernels: each operation of a training step by itself. Convolutions are told in operations a second, beside a loop of
 * multiply-adds alone, or where there is none beside what the same kernels reach on one large product; the others in bytes a
 * second, beside a copy of a large tensor. */
#include <stdlib.h>

#include "bench.h"
#include "layer/product.h"

/* The yardstick product: the weight gradient of a 3x3 convolution, the largest share of the peak that is reached. */
enum { PRODUCT_IMAGES = 1024, PRODUCT_SIDE = 8, PRODUCT_CHANNELS = 512, COPY_SIDE = 16384, HOST_COPY_SIDE = 8192 };
enum { WARM_UP_MOST = 16 };

static const double peak_seconds = 0.3; /* at least: so that some run has the cores to itself */

typedef enum Direction { FORWARD, BACKWARD, GRADIENT, DIRECTIONS } Direction;
static const char *const direction_names[DIRECTIONS] = {"forward", "backward", "gradient"};

typedef enum Kind { PRODUCT_OF_NODE, LAYER, INPUT, LOSS, UPDATE, LARGE_PRODUCT, LARGE_COPY } Kind;

typedef struct Operation {
  Bench *bench;
  NitiNode *node;
  Kind kind;
  Direction direction;
  double operations, bytes; /* either is 0 */
  int repeat;
  NitiTensor x, y; /* of the yardsticks */
  void *sums;
  NitiConv conv;
} Operation;

static const NitiBackendOps *ops_of(const Operation *o) { return o->bench->backend->ops; }

/* ---- the operations of a step ---- */

static void product(const Operation *o) {
  NitiBackend *b = o->bench->backend;
  NitiNode *node = o->node;
  const NitiTensor *mask = node->gate == NITI_GATE_INPUT ? &node->x[0] : NULL;
  if (o->direction == FORWARD)
    b->ops->conv_forward(b, &node->y, &node->x[0], &node->weight, &o->conv, node->fused_relu, &node->forward_rq);
  if (o->direction == BACKWARD)
    b->ops->conv_backward(b, &node->dx[0], &node->dy, &node->weight, mask, &o->conv, &node->backward_rq);
  if (o->direction == GRADIENT) b->ops->conv_gradient(b, &node->gradient, &node->dy, &node->x[0], &o->conv);
}

static void layer(const Operation *o) {
  if (o->direction == FORWARD) o->node->spec.type->forward(o->node, o->bench->backend);
  if (o->direction == BACKWARD) o->node->spec.type->backward(o->node, o->bench->backend);
}

static void input(const Operation *o) { niti_feed_input(o->bench->feed, o->bench->net); }

static void loss(const Operation *o) {
  NitiNetwork *net = o->bench->net;
  net->backend->ops->loss(net->backend, &net->delta, o->bench->metrics, &net->logits, niti_feed_labels(o->bench->feed),
                          NITI_LOSS_NITI, &net->loss_rq);
}

static void update(const Operation *o) { ops_of(o)->update_niti(o->bench->backend, &o->node->weight, &o->node->gradient, 4); }

/* What must be read or written of a tensor; a device's twin of it is written as well. */
static double bytes_of(const Operation *o, const NitiTensor *t) {
  const double count = t->data ? (double)niti_shape_count(t->shape) : 0;
  return t->gradient_operand && !ops_of(o)->host_memory ? 2 * count : count;
}

static double layer_bytes(const Operation *o) {
  const NitiNode *node = o->node;
  const bool forward = o->direction == FORWARD;
  double bytes = bytes_of(o, forward ? &node->y : &node->dy);
  for (int k = 0; k < node->input_count; ++k)
    bytes += forward ? (double)niti_shape_count(node->x[k].shape) : bytes_of(o, &node->dx[k]);
  if (node->spec.type->extra_bytes) bytes += (double)node->spec.type->extra_bytes(node);
  if (!forward && (node->gate == NITI_GATE_OUTPUT || (node->spec.type->needs_output && !node->gated)))
    bytes += (double)niti_shape_count(node->y.shape);
  return bytes;
}

/* The node hands its tensor on as it is. */
static bool is_idle(const NitiNode *node, Direction direction) {
  const bool same_act = node->x[0].data == node->y.data && node->x[0].exponent == node->y.exponent;
  const bool same_delta = node->dx[0].data == node->dy.data && node->dx[0].exponent == node->dy.exponent;
  if (!node->spec.type->keeps_exponent) return false;
  if (direction == FORWARD) return same_act && (node->fused_relu || !node->spec.type->needs_output);
  return same_delta && (node->gated || !node->spec.type->needs_output);
}

/* ---- yardsticks ---- */

static void large_product(const Operation *o) {
  NitiGradient gradient = {o->sums, 32, (size_t)9 * PRODUCT_CHANNELS * PRODUCT_CHANNELS};
  ops_of(o)->conv_gradient(o->bench->backend, &gradient, &o->y, &o->x, &o->conv);
}

static void large_copy(const Operation *o) {
  NitiTensor y = o->y;
  ops_of(o)->copy(o->bench->backend, &y, &o->x);
}

static void enqueue_all(void *context) {
  static void (*const work[])(const Operation *) = {
      [PRODUCT_OF_NODE] = product,     [LAYER] = layer,          [INPUT] = input, [LOSS] = loss, [UPDATE] = update,
      [LARGE_PRODUCT] = large_product, [LARGE_COPY] = large_copy};
  const Operation *o = context;
  for (int i = 0; i < o->repeat; ++i) work[o->kind](o);
}

/* As one piece of recorded work, so that the time is the device's and not that of launching. */
static NitiStatus run_operation(void *context, int repeat) {
  Operation *o = context;
  const NitiReplayKey key = {.pointers = {o->bench, o->node},
                             .numbers = {(int64_t)o->kind, (int64_t)o->direction, repeat},
                             .steady = true}; /* as within a step, where whoever wrote a tensor made what its readers need */
  o->repeat = repeat;
  return ops_of(o)->replay(o->bench->backend, &key, enqueue_all, o);
}

/* A tensor of random mantissas. */
static NitiStatus make_tensor(NitiTensor *t, NitiBackend *b, NitiShape shape, void **memory) {
  const size_t count = niti_shape_count(shape);
  int8_t *host = malloc(count);
  if (!host) return niti_fail(NITI_ERROR_MEMORY, "out of memory: %zu bytes asked for", count);
  uint32_t word = 1;
  for (size_t i = 0; i < count; ++i) {
    word = word * 1664525 + 1013904223;
    host[i] = (int8_t)((int)(word >> 24) % 255 - 127);
  }
  const size_t room = (b->ops->tensor_bytes(b, shape) + 255) / 256 * 256;
  const NitiStatus status = b->ops->alloc(b, memory, room + sizeof(int32_t));
  if (status == NITI_OK) {
    int8_t *data = *memory;
    *t = (NitiTensor){.data = data, .exponent = (int32_t *)(void *)(data + room), .shape = shape};
    b->ops->upload(b, data, host, count);
  }
  free(host);
  return status;
}

/* Operations (or bytes) a second of a yardstick; its tensors are gone afterwards. */
static NitiStatus measure_yardstick(double *rate, Operation *o, const NitiShape shapes[2], double seconds) {
  NitiBackend *b = o->bench->backend;
  NitiTensor *tensors[2] = {&o->y, &o->x};
  void *memory[2] = {NULL, NULL};
  Times times;
  NitiStatus status = NITI_OK;
  for (int i = 0; i < 2 && status == NITI_OK; ++i) status = make_tensor(tensors[i], b, shapes[i], &memory[i]);
  if (status == NITI_OK && o->conv.n > 0) status = b->ops->reserve(b, b->ops->conv_workspace(b, &o->conv));
  if (status == NITI_OK) status = measure(&times, run_operation, b, o, seconds);
  if (status == NITI_OK) *rate = (o->operations + o->bytes) / times.median * 1e3;
  for (int i = 0; i < 2; ++i) {
    if (memory[i]) b->ops->release(b, memory[i]);
  }
  return status;
}

static NitiStatus measure_copy(double *rate, Bench *bench, double seconds) {
  const int32_t side = bench->backend->ops->host_memory ? HOST_COPY_SIDE : COPY_SIDE;
  const NitiShape shape = {1, 1, side, side}, shapes[2] = {shape, shape};
  Operation o = {.bench = bench, .kind = LARGE_COPY, .bytes = 2.0 * side * side};
  return measure_yardstick(rate, &o, shapes, seconds);
}

static NitiStatus measure_product(double *rate, Bench *bench, double seconds) {
  enum { N = PRODUCT_IMAGES, HW = PRODUCT_SIDE, C = PRODUCT_CHANNELS };
  NitiBackend *b = bench->backend;
  const NitiShape shape = {N, HW, HW, C}, shapes[2] = {shape, shape};
  Operation o = {.bench = bench,
                 .kind = LARGE_PRODUCT,
                 .operations = 2.0 * N * HW * HW * 9 * C * C,
                 .conv = {N, HW, HW, C, HW, HW, C, 3, 3, 1, 1, 1, 1, NULL, false}};
  NITI_TRY(b->ops->alloc(b, &o.sums, (size_t)9 * C * C * sizeof(int32_t)));
  const NitiStatus status = measure_yardstick(rate, &o, shapes, seconds);
  b->ops->release(b, o.sums);
  return status;
}

static NitiStatus multiply_adds(void *context, int repeat) {
  Operation *o = context;
  o->operations = 0;
  for (int i = 0; i < repeat; ++i) o->operations += 2.0 * (double)ops_of(o)->multiply_add(o->bench->backend) / repeat;
  return NITI_OK;
}

/* The fastest run, which nothing else disturbed. Gives 0 where the kernels have no such peak. */
static NitiStatus measure_peak(double *rate, Bench *bench, double seconds) {
  Operation o = {.bench = bench};
  Times times;
  NITI_TRY(measure(&times, multiply_adds, bench->backend, &o, seconds < peak_seconds ? peak_seconds : seconds));
  *rate = o.operations / times.min * 1e3;
  return NITI_OK;
}

/* An operation in turns with the peak, so that what else the machine does meets both. */
typedef struct Turns {
  Times times;
  double share, best; /* of the peak before and after each run, the median; the fastest run's of the fastest peak */
} Turns;

static NitiStatus time_peak(double *rate, Bench *bench, double milliseconds) {
  Operation o = {.bench = bench};
  double one, all = 0, operations = 0;
  while (all < milliseconds || operations == 0) {
    NITI_TRY(time_once(&one, multiply_adds, bench->backend, &o, 1));
    all += one;
    operations += o.operations;
  }
  *rate = operations / all * 1e3;
  return NITI_OK;
}

/* Until the range is predicted rightly: what ran before may have left other operands. */
static NitiStatus warm_up(double *one, Operation *o) {
  NitiBackend *b = o->bench->backend;
  for (int i = 0; i < WARM_UP_MOST; ++i) {
    const uint64_t wrong = b->ops->predictions(b).wrong;
    NITI_TRY(time_once(one, run_operation, b, o, 1));
    if (b->ops->predictions(b).wrong == wrong) break;
  }
  return NITI_OK;
}

static NitiStatus measure_turns(Turns *t, Operation *o, double seconds) {
  NitiBackend *b = o->bench->backend;
  Times shares = {.count = 0};
  double one, before, after, fastest = 0;
  NITI_TRY(warm_up(&one, o));
  const double part = one / 4; /* of a run's time, for the peak */
  NITI_TRY(time_peak(&before, o->bench, part));
  const int64_t begin = niti_clock_now();
  t->times.count = 0;
  while (t->times.count < RUNS_MIN || (t->times.count < RUNS_MAX && (double)(niti_clock_now() - begin) * 1e-9 < seconds)) {
    NITI_TRY(time_once(&one, run_operation, b, o, 1));
    NITI_TRY(time_peak(&after, o->bench, part));
    t->times.milliseconds[t->times.count++] = one;
    shares.milliseconds[shares.count++] = o->operations / one * 1e3 / ((before + after) / 2);
    fastest = before > fastest ? before : fastest;
    before = after;
  }
  fastest = before > fastest ? before : fastest;
  times_sort(&t->times);
  times_sort(&shares);
  t->share = shares.median;
  t->best = o->operations / t->times.min * 1e3 / fastest;
  return NITI_OK;
}

/* ---- the table ---- */

typedef struct Table {
  Bench *bench;
  bool json;
  double seconds;                 /* for each row */
  double product_rate, peak_rate; /* of the yardsticks; 0: not measured */
  double copy_rate;
  json_t *products, *others;
  double product_milliseconds, milliseconds;
} Table;

static NitiStatus show_product(Table *t, const Operation *o, const Turns *turns) {
  const Times *times = &turns->times;
  const char *name = ops_of(o)->conv_kernel(o->bench->backend, &o->conv, direction_names[o->direction]);
  const double gops = o->operations / times->median * 1e-6;
  t->product_milliseconds += times->median;
  if (!t->json) {
    printf("%-14s %-9s %-28s %10.3f %10.1f", o->node->spec.name, direction_names[o->direction], name, times->median, gops);
    if (t->peak_rate > 0) printf(" %7.1f %% %7.1f %%", 1e2 * turns->share, 1e2 * turns->best);
    if (t->product_rate > 0) printf(" %7.1f %%", 1e11 * gops / t->product_rate);
    putchar('\n');
    return NITI_OK;
  }
  json_t *row =
      json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f}", "layer", o->node->spec.name, "direction", direction_names[o->direction],
                "kernel", name, "milliseconds", times->median, "min", times->min, "max", times->max, "gops", gops);
  if (t->product_rate > 0) json_object_set_new(row, "share_of_product", json_real(1e9 * gops / t->product_rate));
  if (t->peak_rate > 0) {
    json_object_set_new(row, "share_of_peak", json_real(turns->share));
    json_object_set_new(row, "best_share_of_peak", json_real(turns->best));
  }
  json_array_append_new(t->products, row);
  return NITI_OK;
}

static NitiStatus show_other(Table *t, const Operation *o, const char *name, const char *what, const Times *times) {
  const double rate = o->bytes / times->median * 1e3;
  if (!t->json) {
    printf("%-14s %-9s %-28s %10.3f %10.1f %7.1f %%\n", name, what, "", times->median, rate * 1e-9, 1e2 * rate / t->copy_rate);
    return NITI_OK;
  }
  json_array_append_new(t->others,
                        json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f}", "layer", name, "operation", what, "milliseconds",
                                  times->median, "min", times->min, "max", times->max, "bytes", o->bytes, "gigabytes_per_second",
                                  rate * 1e-9, "share_of_copy", rate / t->copy_rate));
  return NITI_OK;
}

static NitiStatus add_product(Table *t, Operation *o) {
  Turns turns = {.share = 0};
  if (t->peak_rate > 0) {
    NITI_TRY(measure_turns(&turns, o, t->seconds));
  } else {
    NITI_TRY(measure(&turns.times, run_operation, t->bench->backend, o, t->seconds));
  }
  t->milliseconds += turns.times.median;
  return show_product(t, o, &turns);
}

static NitiStatus add_row(Table *t, Operation *o, const char *name, const char *what) {
  Times times;
  NITI_TRY(measure(&times, run_operation, t->bench->backend, o, t->seconds));
  t->milliseconds += times.median;
  return show_other(t, o, name, what, &times);
}

static NitiStatus add_products(Table *t) {
  const NitiNetwork *net = t->bench->net;
  for (int32_t i = 0; i < niti_network_weight_count(net); ++i) {
    NitiNode *node = niti_network_weight_node(net, i);
    for (Direction d = FORWARD; d < DIRECTIONS; ++d) {
      if (d == BACKWARD && !node->dx[0].data) continue;
      Operation o = {.bench = t->bench, .node = node, .direction = d, .kind = PRODUCT_OF_NODE};
      o.conv = niti_product_conv(node, t->bench->recipe->batch);
      o.operations = 2.0 * (double)node->spec.type->multiply_adds(node) * t->bench->recipe->batch;
      NITI_TRY(add_product(t, &o));
    }
  }
  return NITI_OK;
}

static NitiStatus add_others(Table *t) {
  NitiNetwork *net = t->bench->net;
  Operation first = {.bench = t->bench, .kind = INPUT};
  first.bytes = (double)niti_shape_count(net->input.shape) + bytes_of(&first, &net->input);
  NITI_TRY(add_row(t, &first, "input", "forward"));
  for (int32_t i = 1; i <= net->plan->count; ++i) {
    NitiNode *node = &net->plan->nodes[i];
    for (Direction d = FORWARD; d <= BACKWARD && !node->spec.type->weight_shape; ++d) {
      if (is_idle(node, d) || (d == BACKWARD && !node->dx[0].data && !node->dx[1].data)) continue;
      Operation o = {.bench = t->bench, .node = node, .direction = d, .kind = LAYER};
      o.bytes = layer_bytes(&o);
      NITI_TRY(add_row(t, &o, node->spec.name, direction_names[d]));
    }
  }
  Operation last = {.bench = t->bench, .kind = LOSS};
  last.bytes = (double)niti_shape_count(net->logits.shape) + bytes_of(&last, &net->delta);
  NITI_TRY(add_row(t, &last, "loss", "both"));
  for (int32_t i = 0; i < niti_network_weight_count(net); ++i) {
    Operation o = {.bench = t->bench, .node = niti_network_weight_node(net, i), .kind = UPDATE};
    o.bytes = (double)o.node->gradient.count * (2 + o.node->gradient.bits / 8);
    NITI_TRY(add_row(t, &o, o.node->spec.name, "update"));
  }
  return NITI_OK;
}

/* About how many rows there will be, yardsticks counted too. */
static int32_t count_rows(const NitiNetwork *net) { return 2 * net->plan->count + 2 * niti_network_weight_count(net) + 4; }

static const char *share_of(const Table *t) { return t->peak_rate > 0 ? "of peak" : t->product_rate > 0 ? "of large" : ""; }

static NitiStatus fill_table(Table *t, const char *model) {
  Bench *b = t->bench;
  NITI_TRY(bench_step(b)); /* real activations and errors in every tensor */
  NITI_TRY(measure_copy(&t->copy_rate, b, t->seconds));
  if (b->backend->ops->multiply_add) {
    NITI_TRY(measure_peak(&t->peak_rate, b, t->seconds));
  } else {
    NITI_TRY(measure_product(&t->product_rate, b, t->seconds));
  }
  if (!t->json) {
    printf("%s, batch %d, %s\n", model, b->recipe->batch, b->backend->ops->describe(b->backend));
    if (t->product_rate > 0) printf("a large product: %.1f TOPS; ", t->product_rate * 1e-12);
    if (t->peak_rate > 0)
      printf("multiply-adds alone, the peak: %.1f GOPS (kernels that save multiplications can pass it); ", t->peak_rate * 1e-9);
    printf("a large copy: %.1f GB/s, read and written\n\n", t->copy_rate * 1e-9);
    printf("%-14s %-9s %-28s %10s %10s %9s %9s\n", "layer", "direction", "kernel", "ms", "GOPS", share_of(t),
           t->peak_rate > 0 ? "best" : "");
  }
  NITI_TRY(add_products(t));
  if (!t->json) {
    printf("sum of medians %.2f ms: %.1f images/s\n\n", t->product_milliseconds,
           b->recipe->batch / t->product_milliseconds * 1e3);
    printf("%-14s %-9s %-28s %10s %10s %9s\n", "layer", "operation", "", "ms", "GB/s", "of copy");
  }
  return add_others(t);
}

int bench_kernels(Bench *b, const char *model, double seconds, bool json) {
  Table t = {.bench = b, .json = json, .seconds = seconds / count_rows(b->net), .products = json_array(), .others = json_array()};
  if (fill_table(&t, model) != NITI_OK) {
    json_decref(t.products);
    json_decref(t.others);
    return fail();
  }
  if (!json) {
    json_decref(t.products);
    json_decref(t.others);
    printf("sum of all medians %.2f ms: %.1f images/s\n", t.milliseconds, b->recipe->batch / t.milliseconds * 1e3);
    return EXIT_OK;
  }
  return print_json(json_pack("{s:s, s:s, s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:o, s:o}", "bench", "kernels", "model", model,
                              "batch", b->recipe->batch, "device", b->backend->ops->describe(b->backend), "milliseconds",
                              t.product_milliseconds, "milliseconds_with_others", t.milliseconds, "copy_bytes_per_second",
                              t.copy_rate, "product_operations_per_second", t.product_rate, "peak_operations_per_second",
                              t.peak_rate, "kernels", t.products, "others", t.others));
}
