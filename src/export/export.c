/* Exports a network: reads it, plans it, checks the budget, and writes its folder. */
#include "export/export.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/input.h"
#include "base/size.h"
#include "config/builtin.h"
#include "config/closest.h"
#include "export/folder.h"
#include "export/layouts.h"
#include "export/source.h"
#include "model/network.h"
#include "platform/text.h"
#include "program/bounds.h"
#include "train/locate.h"
#include "train/recipe_text.h"

enum { CONTEXT_WORDS = 5, MEAN_DEFAULT = 500000, STD_DEFAULT = 500000 };

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for an export"); }

/* ---- which layers are trained ---- */

static bool has_weights(const NitiDescribedNode *node) { return node->spec.type->weight_shape != NULL; }

static void freeze_but_last(NitiDescription *d, int64_t last) {
  for (int32_t i = d->node_count - 1; i >= 0; --i) {
    if (has_weights(&d->nodes[i])) d->nodes[i].frozen = last-- <= 0;
  }
}

static NitiStatus train_layer(NitiDescription *d, const char *name) {
  const char *names[2048 + 1];
  char hint[NITI_HINT_MAX];
  size_t count = 0;
  for (int32_t i = 0; i < d->node_count; ++i) {
    NitiDescribedNode *node = &d->nodes[i];
    if (!has_weights(node)) continue;
    if (count < 2048) names[count++] = node->spec.name;
    if (strcmp(node->spec.name, name) != 0) continue;
    node->frozen = false;
    return NITI_OK;
  }
  names[count] = NULL;
  return niti_fail(NITI_ERROR_ARGUMENT,
                   "--train: '%s' is no layer with weights of model '%s'%s (expected all, none, last:N or layers)", name, d->name,
                   niti_did_you_mean(hint, name, names));
}

static NitiStatus train_list(NitiDescription *d, const char *list) {
  char *copy = strdup(list), *rest = copy;
  NitiStatus status = copy ? NITI_OK : out_of_memory();
  freeze_but_last(d, 0);
  for (char *name = copy ? strsep(&rest, ",") : NULL; name && status == NITI_OK; name = strsep(&rest, ","))
    status = train_layer(d, name);
  free(copy);
  return status;
}

static int32_t count_weighted(const NitiDescription *d) {
  int32_t count = 0;
  for (int32_t i = 0; i < d->node_count; ++i) count += has_weights(&d->nodes[i]);
  return count;
}

static NitiStatus choose_trained(NitiDescription *d, const char *train) {
  char *end = NULL;
  if (!train) return NITI_OK;
  if (strcmp(train, "all") == 0) {
    freeze_but_last(d, INT32_MAX);
  } else if (strcmp(train, "none") == 0) {
    freeze_but_last(d, 0);
  } else if (strncmp(train, "last:", 5) == 0) {
    const long last = strtol(train + 5, &end, 10);
    const int32_t most = count_weighted(d);
    if (end == train + 5 || *end || last < 1 || last > most)
      return niti_fail(NITI_ERROR_ARGUMENT,
                       "--train %s: expected last:N, N from 1 to %d, which are all layers with weights of '%s'", train, most,
                       d->name);
    freeze_but_last(d, last);
  } else {
    return train_list(d, train);
  }
  return NITI_OK;
}

/* ---- the recipe of the export ---- */

static NitiStatus use_recipe(NitiExport *e, NitiRecipe *r, const NitiExportOptions *options) {
  e->report.default_scale = r->data.stat_count == 0;
  e->report.augmented = niti_data_augments(&r->data);
  e->report.flips = r->test_flip;
  if (r->data.type == NITI_INT16)
    return niti_fail(NITI_ERROR_UNSUPPORTED, "%s: data.type int16 cannot be exported to C (expected uint8 or int8)", r->source);
  for (int32_t c = 0; e->report.default_scale && c < r->model->input.c; ++c) {
    r->data.mean[c] = MEAN_DEFAULT;
    r->data.std[c] = STD_DEFAULT;
  }
  r->data.stat_count = r->model->input.c;
  r->data.random_crop = r->data.resized_crop = r->data.flip = false;
  r->data.mixup = NITI_MIXUP_NONE;
  r->data.cutout = r->data.brightness = r->data.contrast = r->data.saturation = 0;
  r->batch = options->batch;
  const bool none = options->train && strcmp(options->train, "none") == 0; /* no recipe freezes everything */
  if (!none) NITI_TRY(choose_trained(r->model, options->train));
  free(r->text);
  r->text = NULL;
  NITI_TRY(niti_recipe_resolve(r));
  e->recipe = r;
  return none ? choose_trained(r->model, options->train) : NITI_OK;
}

static NitiStatus make_table(NitiExport *e) {
  const NitiDataOptions *data = &e->recipe->data;
  const int32_t channels = e->recipe->model->input.c;
  e->table = malloc((size_t)channels * 256);
  if (!e->table) return out_of_memory();
  if (data->type == NITI_UINT8) return niti_input_table(e->table, &e->table_exponent, channels, data->mean, data->std);
  e->table_exponent = NITI_VALUE_EXPONENT;
  for (int32_t i = 0; i < 256 * channels; ++i)
    e->table[i] = niti_value_mantissa((int8_t)(i & 255), 128, data->mean[i / 256], data->std[i / 256]);
  return NITI_OK;
}

/* ---- names ---- */

/* Whether a list of words, a space between them, has this one. */
static bool has_word(const char *words, const char *name) {
  const size_t length = strlen(name);
  for (const char *at = words; length > 0 && (at = strstr(at, name)) != NULL; at += length) {
    if ((at == words || at[-1] == ' ') && (at[length] == ' ' || at[length] == 0)) return true;
  }
  return false;
}

/* int8_t, UINT_FAST16_MAX, INTPTR_MIN, ... of stdint.h. */
static bool is_of_stdint(const char *name) {
  const bool small = strncmp(name, "int", 3) == 0 || strncmp(name, "uint", 4) == 0;
  const bool large = strncmp(name, "INT", 3) == 0 || strncmp(name, "UINT", 4) == 0 || strncmp(name, "SIZE_", 5) == 0;
  const char *end = strrchr(name, '_');
  return end && (small ? has_word("_t", end) : large && has_word("_MAX _MIN _C", end));
}

/* As the sources call constants: t07_conv1_backward. */
static bool is_constant(const char *name) {
  return strchr("tpwb", name[0]) && isdigit((unsigned char)name[1]) && isdigit((unsigned char)name[2]) && name[3] == '_';
}

/* Words of C and C++, what the sources, the examples, their headers or their build files call something else, and names that
 * begin as the compiler's or the runtime's do. */
static bool is_taken(const char *name) {
  static const char words[] =
      "EOF FILE INPUT_EXPONENT NULL Serial alignas alignof all and and_eq arena arm asm auto bitand bitor bool break case"
      " catch char char16_t char32_t char8_t class clean compl concept const const_cast consteval constexpr constinit continue"
      " copy_row decltype default delay delete do double dynamic_cast else enum explicit export extern false fclose"
      " first_largest float fopen for friend getchar gets goto i386 i686 if inline install int linux long loop main"
      " max_align_t memcpy mips mutable mantissa input_line input_table namespace network new noexcept not not_eq nullptr "
      "nullptr_t offsetof open operator or"
      " or_eq perror pixels predict printf private protected ptrdiff_t public putchar puts read_images register"
      " reinterpret_cast remove rename requires restrict return scanf setup short signed size_t sizeof static static_assert"
      " static_cast stderr stdin stdout struct sun switch template tensors test this thread_local throw train true try typedef"
      " typeid typename typeof union unix unsigned using virtual void volatile wchar_t while xor xor_eq";
  static const char *const first[] = {"_", "rt_", "RT_", "niti_rt"};
  bool taken =
      has_word(words, name) || strcmp(name, "rt") == 0 || strcmp(name, "RT") == 0 || is_of_stdint(name) || is_constant(name);
  for (size_t i = 0; i < sizeof first / sizeof *first; ++i) taken |= strncmp(name, first[i], strlen(first[i])) == 0;
  return taken;
}

static NitiStatus choose_name(NitiExport *e, const char *given) {
  const char *name = given ? given : e->recipe->model->name;
  niti_export_c_name(e->name, name, false);
  niti_export_c_name(e->upper, name, true);
  memcpy(e->report.name, e->name, sizeof e->name);
  if (is_taken(e->name))
    return niti_fail(
        NITI_ERROR_ARGUMENT,
        "the export would be called %s, which means something else in C, in the runtime (rt, niti_rt) or in its build "
        "(expected another name: --name NAME)",
        e->name);
  if (!given || (given[0] != '\0' && strcmp(given, e->name) == 0)) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT, "--name %s: expected 1 to %d of A-Z a-z 0-9 _, not a digit first", given,
                   NITI_EXPORT_NAME_MAX - 1);
}

/* ---- plans and the budget ---- */

static NitiStatus plan_program(NitiExportPlan *out, const NitiExport *e, bool training, int64_t fast_bytes) {
  const NitiLowerOptions options = niti_recipe_lowering(e->recipe, training ? e->recipe->batch : 1, training);
  return niti_export_plan_open(out, e->recipe->model, &options, fast_bytes);
}

static int64_t forward_adds(const NitiProgram *p) {
  int64_t sum = 0;
  for (int32_t i = 0; i < p->operation_count; ++i) {
    if (p->operations[i].phase == NITI_PHASE_FORWARD) sum += niti_multiply_adds(&p->operations[i]);
  }
  return sum;
}

static int64_t all_adds(const NitiProgram *p) {
  int64_t sum = 0;
  for (int32_t i = 0; i < p->operation_count; ++i) sum += niti_multiply_adds(&p->operations[i]);
  return sum;
}

static void describe_fullest(char *out, size_t size, const NitiExportPlan *plan) {
  int64_t bytes;
  const int32_t i = niti_export_fullest(plan, &bytes);
  niti_export_step_name(out, size, plan, i < plan->step_count ? i : plan->step_count - 1);
}

static void measure(NitiExport *e) {
  NitiExportReport *r = &e->report;
  const bool train = niti_export_trains(e), larger = train && e->training.arena_bytes > e->inference.arena_bytes;
  r->batch = e->recipe->batch;
  r->arena = larger ? e->training.arena_bytes : e->inference.arena_bytes;
  r->context = (int64_t)niti_round_up(
      (size_t)(4 * (CONTEXT_WORDS + niti_export_exponents(e)) + niti_export_hints(e) + r->trained_weights), 8);
  r->stack = NITI_EXPORT_STACK;
  r->image = (int64_t)niti_shape_image(e->recipe->model->input);
  r->ram = r->context + r->arena + r->stack;
  r->multiply_adds = forward_adds(e->inference.program);
  r->training_multiply_adds = train ? all_adds(e->training.program) : 0;
  describe_fullest(r->fullest, sizeof r->fullest, larger ? &e->training : &e->inference);
}

static NitiStatus over_budget(const NitiExport *e, int64_t budget) {
  const NitiExportReport *r = &e->report;
  return niti_fail(
      NITI_ERROR_UNSUPPORTED,
      "%s needs %lld bytes of RAM, %lld more than the budget of %lld: context %lld (weights that are trained: %lld), arena %lld "
      "(the most in the %s), stack %lld (a smaller --batch, or fewer layers in --train, need less)",
      e->name, (long long)r->ram, (long long)(r->ram - budget), (long long)budget, (long long)r->context,
      (long long)r->trained_weights, (long long)r->arena, r->fullest, (long long)r->stack);
}

/* The largest memory for whole sums that an update uses. */
static int64_t largest_whole(const NitiExportPlan *p) {
  int64_t most = 0;
  for (int32_t i = 0; i < p->step_count; ++i) {
    const NitiExportStep *s = &p->steps[i];
    if (s->kept > 0 && p->spaces[s->use[NITI_EXPORT_WORK]].bytes > most) most = p->spaces[s->use[NITI_EXPORT_WORK]].bytes;
  }
  return most;
}

/* What the budget leaves for the arena; both plans give up time for memory where that is not enough. */
static NitiStatus shrink(NitiExport *e, int64_t budget) {
  measure(e);
  const int64_t bytes = budget - e->report.context - e->report.stack;
  NITI_TRY(niti_export_plan_shrink(&e->inference, bytes));
  if (niti_export_trains(e)) NITI_TRY(niti_export_plan_shrink(&e->training, bytes));
  measure(e);
  return e->report.ram > budget ? over_budget(e, budget) : NITI_OK;
}

static NitiStatus plan_least(NitiExport *e, const NitiExportOptions *options) {
  int64_t fast = options->fast ? INT64_MAX : 0;
  NITI_TRY(plan_program(&e->inference, e, false, 0));
  if (e->report.trained == 0) {
    measure(e);
    return options->budget > 0 && e->report.ram > options->budget ? shrink(e, options->budget) : NITI_OK;
  }
  for (;;) {
    NITI_TRY(plan_program(&e->training, e, true, fast));
    measure(e);
    if (options->budget == 0 || e->report.ram <= options->budget) return NITI_OK;
    fast = largest_whole(&e->training) - 1;
    if (fast < 0) return shrink(e, options->budget);
    niti_export_plan_close(&e->training);
  }
}

static NitiStatus plan_all(NitiExport *e, const NitiExportOptions *options) {
  NITI_TRY(plan_least(e, options));
  if (e->report.trained > 0) NITI_TRY(niti_export_plan_fill(&e->training, e->report.arena));
  measure(e);
  return NITI_OK;
}

/* ---- files ---- */

typedef void (*Writer)(FILE *to, const NitiExport *e);

static char *text_of(Writer writer, const NitiExport *e) {
  NitiTextMemory memory;
  if (niti_text_open(&memory)) writer(memory.to, e);
  return niti_text_close(&memory, NULL);
}

static void add_named(NitiExportFiles *files, const NitiExport *e, const char *folder, const char *ending, char *text) {
  char name[NITI_EXPORT_NAME_MAX + 16];
  (void)snprintf(name, sizeof name, "%s%s", e->name, ending);
  niti_export_add_file(files, folder, name, text);
}

static void add_files(NitiExportFiles *files, const NitiExport *e, const NitiExportOptions *options) {
  const char *folder = niti_export_folder(options->layout);
  add_named(files, e, folder, ".h", text_of(niti_export_write_header, e));
  add_named(files, e, folder, ".c", text_of(niti_export_write_source, e));
  niti_export_add_file(files, "", "arena.txt", text_of(niti_export_write_arena, e));
  for (size_t i = 0; niti_builtin_runtime_names[i]; ++i) {
    char name[NITI_EXPORT_NAME_MAX];
    (void)snprintf(name, sizeof name, "%s.h", niti_builtin_runtime_names[i]);
    niti_export_add_file(files, folder, name, strdup(niti_builtin_runtime_texts[i]));
  }
  niti_export_add_layout(files, options->layout, &e->report);
}

/* The recipe of the export, and the weights that the device starts from. */
static NitiStatus fill_checkpoint(NitiCheckpoint *checkpoint, const NitiExport *e) {
  for (int32_t i = 0; i < e->weight_count; ++i) {
    const NitiCheckpointTensor *t = e->weights[i].tensor;
    NITI_TRY(niti_checkpoint_add(checkpoint, t->name, t->dtype, t->ndim, t->dims, t->exponent, t->data));
  }
  NITI_TRY(niti_checkpoint_set(checkpoint, "arithmetic", NITI_ARITHMETIC));
  if (niti_export_trains(e)) NITI_TRY(niti_import_state(checkpoint, e->start.step, e->start.mu, e->start.seed));
  NITI_TRY(niti_checkpoint_set(checkpoint, "recipe", e->recipe->text));
  return niti_checkpoint_set(checkpoint, "model", e->recipe->model->text);
}

static NitiStatus write_files(const NitiExport *e, const char *out, const NitiExportFiles *files) {
  NitiCheckpoint *checkpoint;
  NITI_TRY(niti_checkpoint_open(&checkpoint));
  NitiStatus status = fill_checkpoint(checkpoint, e);
  if (status == NITI_OK) status = niti_export_write_folder(out, e->name, files, checkpoint);
  niti_checkpoint_close(checkpoint);
  return status;
}

static NitiStatus write_all(const NitiExport *e, const NitiExportOptions *options) {
  NitiExportFiles files = {.count = 0};
  NITI_TRY(niti_export_check_folder(options->out, e->name));
  add_files(&files, e, options);
  NitiStatus status = NITI_OK;
  for (int i = 0; i < files.count && status == NITI_OK; ++i) {
    if (!files.files[i].text) status = out_of_memory();
  }
  if (status == NITI_OK) status = write_files(e, options->out, &files);
  niti_export_files_close(&files);
  return status;
}

/* What the runtime lacks, before anything that only its networks have. */
static NitiStatus check_known(const NitiExport *e, bool training) {
  const NitiLowerOptions options = niti_recipe_lowering(e->recipe, training ? e->recipe->batch : 1, training);
  NitiProgram *program;
  NITI_TRY(niti_lower(&program, e->recipe->model, &options));
  const NitiStatus status = niti_export_check(program);
  niti_program_close(program);
  return status;
}

/* With what the device begins. batch: the run's own, by which its schedule counts epochs. */
static NitiStatus start_of(NitiExport *e, NitiRecipe *recipe, int32_t batch, const NitiCheckpoint *checkpoint) {
  const int32_t own = recipe->batch;
  recipe->batch = batch;
  const NitiStatus status = niti_device_start(&e->start, recipe, checkpoint, "cannot be exported to C");
  recipe->batch = own;
  e->report.step = e->start.step;
  e->report.mu = e->start.mu;
  e->report.scheduled = e->start.scheduled;
  return status;
}

static NitiStatus export_with(NitiExport *e, NitiRecipe *recipe, const NitiCheckpoint *checkpoint,
                              const NitiExportOptions *options) {
  const int32_t batch = recipe->batch;
  NITI_TRY(use_recipe(e, recipe, options));
  e->start = (NitiDeviceStart){.seed = recipe->seed, .mu = niti_recipe_mu(recipe, 0)};
  NITI_TRY(choose_name(e, options->name));
  NITI_TRY(make_table(e));
  NITI_TRY(check_known(e, false));
  if (!options->train || strcmp(options->train, "none") != 0) {
    NITI_TRY(check_known(e, true));
    NITI_TRY(start_of(e, recipe, batch, checkpoint));
  }
  NITI_TRY(niti_export_weights_open(e, checkpoint));
  NITI_TRY(plan_all(e, options));
  return write_all(e, options);
}

NitiStatus niti_export_c(NitiExportReport *out, const char *network, const NitiExportOptions *options) {
  NitiExport e = {.recipe = NULL};
  NitiRecipe *recipe = NULL;
  NitiCheckpoint *checkpoint = NULL;
  NitiLocation where;
  *out = (NitiExportReport){.batch = 0};
  NitiStatus status = niti_locate(&where, network);
  if (status == NITI_OK) status = niti_location_recipe(&recipe, &where);
  if (status == NITI_OK) status = niti_location_weights(&checkpoint, &where);
  if (status == NITI_OK) status = export_with(&e, recipe, checkpoint, options);
  if (status == NITI_OK) *out = e.report;
  niti_export_plan_close(&e.training);
  niti_export_plan_close(&e.inference);
  free(e.weights);
  free(e.table);
  niti_checkpoint_close(checkpoint);
  niti_recipe_close(recipe);
  niti_location_close(&where);
  return status;
}
