/* niti vectors and niti compare: operands and results for hardware designers. */
#include "export/vectors.h"

#include <inttypes.h>

#include "cli.h"

typedef struct Arguments {
  bool json, corners;
  int64_t steps, batch;
  const char *out, *operations, *formats;
} Arguments;

static const Option vectors_options[] = {
    TEXT("out", out, "DIR", "the folder to write: new or empty; those above it are made"),
    NUMBER("steps", steps, "N", "training steps (default: 1); not with --corners", 1, 10000),
    NUMBER("batch", batch, "N", "images per step (default: the recipe's); not with --corners", 1, 4096),
    TEXT("operations", operations, "WORDS", "only operations whose names contain one of these: conv,update,... (default: all)"),
    TEXT("formats", formats, "NAMES", "npy,hex,h,safetensors or some of them (default: npy)"),
    FLAG("corners", corners, "directed cases of the arithmetic and of every operation instead of a network's steps"),
    JSON_OPTION,
    {0},
};
static const Option compare_options[] = {JSON_OPTION, {0}};

static int run_vectors(int argc, char **argv);
static int run_compare(int argc, char **argv);
const Command command_vectors = {
    "vectors",
    "NETWORK --out DIR [--steps N] [--batch N] [--operations WORDS] [--formats NAMES] [--corners] [--json]",
    "write operands, sums and results of every operation, for hardware designers",
    "niti vectors lenet5 --steps 2 --batch 1 --out vectors --formats npy,hex",
    "NETWORK",
    vectors_options,
    run_vectors};
const Command command_compare = {"compare",
                                 "DIR DIR [--json]",
                                 "name the first element in which two folders of vectors, or two runs, differ",
                                 "niti compare vectors simulated",
                                 "DIR",
                                 compare_options,
                                 run_compare};

static int run_vectors(int argc, char **argv) {
  Arguments given = {0};
  int64_t written;
  int count;
  const int code = options_parse(&command_vectors, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != !given.corners)
    return usage_error(&command_vectors, given.corners ? "--corners takes no network"
                                         : count == 0  ? "a network is missing"
                                                       : "one network at a time");
  if (!given.out) return usage_error(&command_vectors, "--out is missing");
  if (given.corners && (given.steps || given.batch))
    return usage_error(&command_vectors, "--corners has no %s", given.steps ? "--steps" : "--batch");
  const NitiVectorOptions chosen = {.out = given.out,
                                    .operations = given.operations,
                                    .formats = given.formats,
                                    .steps = given.steps ? (int32_t)given.steps : 1,
                                    .batch = (int32_t)given.batch};
  const NitiStatus status =
      given.corners ? niti_vectors_corners(&written, &chosen) : niti_vectors_write(&written, argv[1], &chosen);
  if (status != NITI_OK) return fail();
  if (given.json) return print_json(json_pack("{s:I, s:o}", "operations", (json_int_t)written, "out", json_name(given.out)));
  printf("%" PRId64 " operations in ", written);
  print_name(stdout, given.out);
  printf("/index.json\n");
  return EXIT_OK;
}

static int run_compare(int argc, char **argv) {
  Arguments given = {.steps = 0};
  NitiDifference difference;
  int count;
  const int code = options_parse(&command_compare, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 2) return usage_error(&command_compare, "expected two folders");
  if (niti_compare(&difference, argv[1], argv[2]) != NITI_OK) return fail();
  if (given.json) {
    const int printed = print_json(json_pack("{s:b, s:o}", "equal", !difference.differs, "where", json_string(difference.where)));
    return printed == EXIT_OK && difference.differs ? EXIT_FAILED : printed;
  }
  puts(difference.differs ? difference.where : "equal");
  return difference.differs ? EXIT_FAILED : EXIT_OK;
}
