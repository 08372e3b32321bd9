/* niti bench kernels: each operation of a training step by itself. Convolutions are reported in operations per second, beside a
 * loop of multiply-adds alone, or where there is none beside what the same kernels reach on one large product; the others in
 * bytes per second, beside a ReLU over a large tensor. */
#include <stdlib.h>

#include "bench.h"
#include "program/bounds.h"

/* The yardstick product: the weight gradient of a 3x3 convolution, the largest share of the peak that is reached. */
enum { PRODUCT_IMAGES = 1024, PRODUCT_SIDE = 8, PRODUCT_CHANNELS = 512, STREAM_SIDE = 16384, HOST_STREAM_SIDE = 8192 };
enum { WARM_UP_MOST = 16 };

static const double peak_seconds = 0.3; /* at least: so that some run has the cores to itself */

/* A range of one operation, run by itself. */
typedef struct Operation {
  Bench *bench;
  NitiExecutable *executable;
  int32_t number;
  double operations, bytes; /* either is 0 */
} Operation;

static NitiStatus run_operation(void *context, int repeat) {
  const Operation *o = context;
  NitiBindings bindings = o->bench->bindings;
  bindings.batch = niti_executable_program(o->executable)->batch;
  bindings.repeat = repeat;
  return niti_executable_run(o->executable, o->number, o->number + 1, &bindings);
}

/* What must be read and written: every operand once. */
static double bytes_of(const NitiProgram *p, const NitiOperation *o) {
  double bytes = 0;
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    const int32_t operands[2] = {o->inputs[k], o->outputs[k]};
    for (int side = 0; side < 2; ++side) {
      if (operands[side] == NITI_NONE) continue;
      const NitiTensorDesc *t = &p->tensors[operands[side]];
      bytes += (double)niti_tensor_count(t, p->batch) * (double)niti_dtype_bytes(t->dtype);
    }
  }
  return bytes;
}

/* ---- yardsticks: programs of one operation ---- */

static int32_t add_random(NitiProgram *p, NitiShape shape, NitiRole role) {
  const NitiTensorDesc t = niti_tensor_desc(role, shape);
  return niti_program_add_tensor(p, &t);
}

static NitiStatus fill_random(NitiExecutable *e, int32_t tensor) {
  const NitiProgram *p = niti_executable_program(e);
  const size_t count = niti_tensor_count(&p->tensors[tensor], p->batch);
  int8_t *host = malloc(count);
  if (!host) return niti_fail(NITI_ERROR_MEMORY, "out of memory: %zu bytes asked for", count);
  uint32_t word = 1;
  for (size_t i = 0; i < count; ++i) {
    word = word * 1664525 + 1013904223;
    host[i] = (int8_t)((int)(word >> 24) % 255 - 127);
  }
  const NitiStatus status = niti_executable_write(e, tensor, p->batch, host, NULL);
  free(host);
  return status;
}

/* Operations (or bytes) per second of the program's only operation. */
static NitiStatus measure_yardstick(double *rate, Operation *o, const NitiProgram *program, double seconds) {
  const NitiCompileOptions plain = {.plain = true};
  NitiBackend *b = o->bench->backend;
  Times times;
  NITI_TRY(niti_program_check(program));
  NITI_TRY(niti_backend_compile(&o->executable, b, program, &plain));
  NitiStatus status = NITI_OK;
  for (int k = 0; k < NITI_OPERANDS_MAX && status == NITI_OK; ++k) {
    if (program->operations[0].inputs[k] != NITI_NONE) status = fill_random(o->executable, program->operations[0].inputs[k]);
  }
  if (status == NITI_OK) status = measure(&times, run_operation, b, o, seconds);
  if (status == NITI_OK) *rate = (o->operations + o->bytes) / times.median * 1e3;
  niti_executable_close(o->executable);
  return status;
}

static NitiStatus measure_stream(double *rate, Bench *bench, double seconds) {
  const int32_t side = bench->backend->ops->host_memory ? HOST_STREAM_SIDE : STREAM_SIDE;
  const NitiShape shape = {16, 1, side / 16, side}; /* devices work on blocks of images */
  NitiProgram *program = NULL;
  NITI_TRY(niti_program_open(&program, shape.n));
  NitiOperation relu = niti_operation(NITI_OP_RELU_FORWARD, NITI_PHASE_FORWARD, 0);
  relu.inputs[0] = add_random(program, shape, NITI_ROLE_ACTIVATION);
  relu.outputs[0] = add_random(program, shape, NITI_ROLE_ACTIVATION);
  niti_program_add_operation(program, &relu);
  Operation o = {.bench = bench, .bytes = 2.0 * side * side};
  const NitiStatus status = measure_yardstick(rate, &o, program, seconds);
  niti_program_close(program);
  return status;
}

static NitiStatus measure_product(double *rate, Bench *bench, double seconds) {
  enum { N = PRODUCT_IMAGES, HW = PRODUCT_SIDE, C = PRODUCT_CHANNELS };
  const NitiShape shape = {N, HW, HW, C};
  NitiProgram *program = NULL;
  NITI_TRY(niti_program_open(&program, N));
  NitiTensorDesc sums = niti_tensor_desc(NITI_ROLE_GRADIENT, (NitiShape){C, 3, 3, C});
  sums.dtype = NITI_DTYPE_S32;
  sums.exponents = NITI_EXPONENTS_NONE;
  sums.batched = false;
  NitiOperation product = niti_operation(NITI_OP_CONV_GRADIENT, NITI_PHASE_BACKWARD, 0);
  product.inputs[0] = add_random(program, shape, NITI_ROLE_DELTA);
  product.inputs[1] = add_random(program, shape, NITI_ROLE_ACTIVATION);
  product.outputs[0] = niti_program_add_tensor(program, &sums);
  product.conv = (NitiConv){.n = N,
                            .h = HW,
                            .w = HW,
                            .c = C,
                            .oh = HW,
                            .ow = HW,
                            .k = C,
                            .kh = 3,
                            .kw = 3,
                            .stride_h = 1,
                            .stride_w = 1,
                            .pad_h = 1,
                            .pad_w = 1};
  niti_program_add_operation(program, &product);
  Operation o = {.bench = bench, .operations = 2.0 * N * HW * HW * 9 * C * C};
  const NitiStatus status = measure_yardstick(rate, &o, program, seconds);
  niti_program_close(program);
  return status;
}

static NitiStatus multiply_adds(void *context, int repeat) {
  Operation *o = context;
  NitiBackend *b = o->bench->backend;
  o->operations = 0;
  for (int i = 0; i < repeat; ++i) o->operations += 2.0 * (double)b->ops->multiply_add(b) / repeat;
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
    const uint64_t wrong = b->ops->shift_counts(b).retries;
    NITI_TRY(time_once(one, run_operation, b, o, 1));
    if (b->ops->shift_counts(b).retries == wrong) break;
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
  double stream_rate;
  json_t *products, *others;
  double product_milliseconds, milliseconds;
} Table;

static const char *direction_of(NitiOpcode opcode) {
  if (opcode == NITI_OP_CONV_GRADIENT) return "gradient";
  return opcode == NITI_OP_CONV_BACKWARD ? "backward" : "forward";
}

static NitiStatus show_product(Table *t, const Operation *o, const Turns *turns) {
  const Times *times = &turns->times;
  const NitiProgram *p = niti_executable_program(o->executable);
  const NitiOperation *operation = &p->operations[o->number];
  const char *name = niti_executable_kernel(o->executable, o->number), *layer = p->layers[operation->layer],
             *direction = direction_of(operation->opcode);
  const double gops = o->operations / times->median * 1e-6;
  t->product_milliseconds += times->median;
  if (!t->json) {
    printf("%-14s %-9s %-28s %10.3f %10.1f", layer, direction, name, times->median, gops);
    if (t->peak_rate > 0) printf(" %7.1f %% %7.1f %%", 1e2 * turns->share, 1e2 * turns->best);
    if (t->product_rate > 0) printf(" %7.1f %%", 1e11 * gops / t->product_rate);
    putchar('\n');
    return NITI_OK;
  }
  json_t *row = json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f}", "layer", layer, "direction", direction, "kernel", name,
                          "milliseconds", times->median, "min", times->min, "max", times->max, "gops", gops);
  if (t->product_rate > 0) json_object_set_new(row, "share_of_product", json_real(1e9 * gops / t->product_rate));
  if (t->peak_rate > 0) {
    json_object_set_new(row, "share_of_peak", json_real(turns->share));
    json_object_set_new(row, "best_share_of_peak", json_real(turns->best));
  }
  json_array_append_new(t->products, row);
  return NITI_OK;
}

static NitiStatus show_other(Table *t, const Operation *o, const Times *times) {
  const NitiProgram *p = niti_executable_program(o->executable);
  const NitiOperation *operation = &p->operations[o->number];
  const char *layer = operation->layer > 0 ? p->layers[operation->layer] : "-", *what = niti_opcodes[operation->opcode].name;
  const double rate = o->bytes / times->median * 1e3;
  if (!t->json) {
    printf("%-14s %-18s %-19s %10.3f %10.1f %7.1f %%\n", layer, what, "", times->median, rate * 1e-9,
           1e2 * rate / t->stream_rate);
    return NITI_OK;
  }
  json_array_append_new(t->others,
                        json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f}", "layer", layer, "operation", what, "milliseconds",
                                  times->median, "min", times->min, "max", times->max, "bytes", o->bytes, "gigabytes_per_second",
                                  rate * 1e-9, "share_of_stream", rate / t->stream_rate));
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

static NitiStatus add_other(Table *t, Operation *o) {
  Times times;
  NITI_TRY(measure(&times, run_operation, t->bench->backend, o, t->seconds));
  t->milliseconds += times.median;
  return show_other(t, o, &times);
}

/* The products, or the other operations, of a training step. */
static NitiStatus add_rows(Table *t, bool products) {
  NitiExecutable *e = t->bench->net->training;
  const NitiProgram *p = niti_executable_program(e);
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const int64_t products_per_image = niti_multiply_adds(&p->operations[i]);
    if ((products_per_image > 0) != products || niti_executable_is_idle(e, i)) continue;
    Operation o = {.bench = t->bench, .executable = e, .number = i};
    if (products) {
      o.operations = 2.0 * (double)products_per_image * p->batch;
      NITI_TRY(add_product(t, &o));
    } else {
      o.bytes = bytes_of(p, &p->operations[i]);
      NITI_TRY(add_other(t, &o));
    }
  }
  return NITI_OK;
}

static const char *share_of(const Table *t) { return t->peak_rate > 0 ? "of peak" : t->product_rate > 0 ? "of large" : ""; }

static NitiStatus fill_table(Table *t, const char *model) {
  Bench *b = t->bench;
  NITI_TRY(bench_step(b)); /* real activations and deltas in every tensor */
  NITI_TRY(measure_stream(&t->stream_rate, b, t->seconds));
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
    printf("a large ReLU: %.1f GB/s, read and written\n\n", t->stream_rate * 1e-9);
    printf("%-14s %-9s %-28s %10s %10s %9s %9s\n", "layer", "direction", "kernel", "ms", "GOPS", share_of(t),
           t->peak_rate > 0 ? "best" : "");
  }
  NITI_TRY(add_rows(t, true));
  if (!t->json) {
    printf("sum of medians %.2f ms: %.1f images/s\n\n", t->product_milliseconds,
           b->recipe->batch / t->product_milliseconds * 1e3);
    printf("%-14s %-18s %-19s %10s %10s %9s\n", "layer", "operation", "", "ms", "GB/s", "of ReLU");
  }
  return add_rows(t, false);
}

int bench_kernels(Bench *b, const char *model, double seconds, bool json) {
  const int32_t rows = niti_executable_program(b->net->training)->operation_count + 2; /* yardsticks counted too */
  Table t = {.bench = b, .json = json, .seconds = seconds / rows, .products = json_array(), .others = json_array()};
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
  return print_json(json_pack("{s:s, s:o, s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:o, s:o}", "bench", "kernels", "model",
                              json_name(model), "batch", b->recipe->batch, "device", b->backend->ops->describe(b->backend),
                              "milliseconds", t.product_milliseconds, "milliseconds_with_others", t.milliseconds,
                              "stream_bytes_per_second", t.stream_rate, "product_operations_per_second", t.product_rate,
                              "peak_operations_per_second", t.peak_rate, "kernels", t.products, "others", t.others));
}
