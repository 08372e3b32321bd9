/* niti eval: the score of a network on a data set's test split. */
#include <inttypes.h>

#include "cli.h"

typedef struct Arguments {
  DeviceOptions device;
  const char *data;
  bool json;
} Arguments;

static const Option options[] = {
    TEXT("data", data, "DIR", "the data set's folder (default: Debian's Fashion-MNIST)"),
    DEVICE_OPTIONS(device),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_eval = {"eval",
                              "NETWORK [--data DIR] [OPTIONS]",
                              "score a network on a test set",
                              "niti eval runs/first --data /usr/share/datasets/fashion-mnist --json",
                              "NETWORK",
                              options,
                              run};

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_eval, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_eval, count == 0 ? "a checkpoint is missing" : "one checkpoint at a time");

  const NitiDevice where = device_of(&given.device);
  NitiModel *model = NULL;
  NitiScore score;
  char hash[65];
  NitiLocation network;
  if (!locate_weights(&network, argv[1])) return fail();
  niti_location_close(&network);
  if (niti_checkpoint_file_hash(argv[1], hash) != NITI_OK || niti_model_open(&model, argv[1], &where) != NITI_OK) return fail();
  const NitiStatus status = niti_model_evaluate(model, &score, given.data);
  niti_model_close(model);
  if (status != NITI_OK) return fail();
  if (given.json) {
    return print_json(json_pack("{s:f, s:f, s:I, s:I, s:s}", "test_accuracy", percent(score.correct, score.images), "test_loss",
                                nats(score), "correct", (json_int_t)score.correct, "images", (json_int_t)score.images, "hash",
                                hash));
  }
  printf("test accuracy %.2f %% (%" PRId64 " of %" PRId64 "), loss %.4f\n", percent(score.correct, score.images), score.correct,
         score.images, nats(score));
  return EXIT_OK;
}
