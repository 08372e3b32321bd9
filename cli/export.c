/* niti export: a network as C for processors without an operating system. */
#include "export/export.h"

#include <inttypes.h>
#include <string.h>

#include "cli.h"

typedef struct Arguments {
  bool json;
  int64_t batch, budget;
  const char *out, *name, *train, *memory, *layout;
} Arguments;

static const Option options[] = {
    TEXT("out", out, "DIR", "the folder to write: new, empty or an earlier export of the network; those above it are made"),
    TEXT("name", name, "NAME", "of the functions and files (default: the model's)"),
    TEXT("train", train, "LAYERS",
         "what the device trains: all, none, last:N or LAYER,... (default: as the recipe's `freeze` says)"),
    NUMBER("batch", batch, "N", "the most images of a training step (default: 1)", 1, 4096),
    NUMBER("budget", budget, "BYTES", "of RAM, stack included: fail where the network needs more", 1, INT64_C(1) << 40),
    CHOICE("memory", memory, "least|fast", "least (default), or fast: RAM that is left saves time (same results)"),
    CHOICE("layout", layout, "cmake|platformio|arduino|zephyr|cmsis-pack",
           "the build system: cmake (default), platformio, arduino, zephyr, cmsis-pack"),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_export = {
    "export",
    "c NETWORK --out DIR [--train LAYERS] [--batch N] [--budget BYTES] [--memory least|fast] [--layout NAME] "
    "[--name NAME] [--json]",
    "write a network as C that predicts and trains on a microcontroller",
    "niti export c runs/first --out firmware/network --train last:1 --budget 40000",
    "c NETWORK",
    options,
    run};

static int print_report(const NitiExportReport *r, const char *out) {
  printf("%s: %s.c, %s.h and the runtime in ", r->name, r->name, r->name);
  print_name(stdout, out);
  printf("\n\ntrained         %" PRId32 " of %" PRId32 " layers with weights, batch %" PRId32 "\n", r->trained, r->layers,
         r->batch);
  printf("flash           %" PRId64 " bytes of weights (%" PRId64 " frozen), besides code\n",
         r->trained_weights + r->frozen_weights, r->frozen_weights);
  printf("RAM             %" PRId64 " bytes: context %" PRId64 " (weights %" PRId64 "), arena %" PRId64 ", stack at most %" PRId64
         "\n",
         r->ram, r->context, r->trained_weights, r->arena, r->stack);
  printf("pixels          %" PRId64 " bytes besides, where %s in memory; none where a callback gives rows\n",
         r->trained > 0 ? r->batch * r->image : r->image, r->trained > 0 && r->batch > 1 ? "a batch is" : "an image is");
  printf("fullest         %s\n", r->fullest);
  printf("multiply-adds   %" PRId64 " per image to predict", r->multiply_adds);
  if (r->trained > 0) printf(", at most %" PRId64 " to train", r->training_multiply_adds);
  printf("\n");
  if (r->trained > 0) printf("begins          at step %" PRId64 " with mu %" PRId32 "\n", r->step, r->mu);
  return EXIT_OK;
}

static int report_json(const NitiExportReport *r) {
  return print_json(json_pack("{s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:i}", "name", r->name,
                              "batch", r->batch, "layers", r->layers, "trained", r->trained, "trained_weights",
                              (json_int_t)r->trained_weights, "frozen_weights", (json_int_t)r->frozen_weights, "ram",
                              (json_int_t)r->ram, "context", (json_int_t)r->context, "arena", (json_int_t)r->arena, "stack",
                              (json_int_t)r->stack, "image", (json_int_t)r->image, "fullest", r->fullest, "multiply_adds",
                              (json_int_t)r->multiply_adds, "training_multiply_adds", (json_int_t)r->training_multiply_adds,
                              "step", (json_int_t)r->step, "mu", r->mu));
}

/* The number of a word in a list that ends with NULL, or -1. */
static int index_of(const char *const *words, const char *word) {
  for (int i = 0; words[i]; ++i) {
    if (strcmp(words[i], word) == 0) return i;
  }
  return -1;
}

static int run(int argc, char **argv) {
  Arguments given = {.batch = 1, .memory = "least", .layout = "cmake"};
  NitiExportReport report;
  int count;
  const int code = options_parse(&command_export, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count < 1 || strcmp(argv[1], "c") != 0) return usage_error(&command_export, "expected 'c' and a network");
  if (count != 2) return usage_error(&command_export, count == 1 ? "a network is missing" : "one network at a time");
  if (!given.out) return usage_error(&command_export, "--out is missing");
  const int layout = index_of(niti_export_layouts, given.layout);
  if (layout < 0)
    return usage_error(&command_export, "--layout: '%s' is none of cmake, platformio, arduino, zephyr, cmsis-pack", given.layout);
  const bool fast = strcmp(given.memory, "fast") == 0;
  if (!fast && strcmp(given.memory, "least") != 0)
    return usage_error(&command_export, "--memory: '%s' is neither least nor fast", given.memory);
  const NitiExportOptions chosen = {.out = given.out,
                                    .name = given.name,
                                    .train = given.train,
                                    .batch = (int32_t)given.batch,
                                    .budget = given.budget,
                                    .fast = fast,
                                    .layout = (NitiExportLayout)layout};
  if (niti_export_c(&report, argv[2], &chosen) != NITI_OK) return fail();
  if (report.default_scale) say("the recipe has no data.mean and data.std: pixels are scaled by 0.5 and 0.5");
  if (report.scheduled)
    say("update.mu is a schedule: the device begins with mu %" PRId32 ", and its firmware sets any other (network.mu)",
        report.mu);
  if (report.augmented)
    say("the device takes images as they are: the recipe's random crops and flips, colours, cutout and mixup are left out");
  if (report.flips) say("the device predicts from the image alone, without its mirror: the recipe's evaluation.flip is left out");
  return given.json ? report_json(&report) : print_report(&report, given.out);
}
