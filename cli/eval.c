/* niti eval: the score of a network on a data set's test split. */
#include <inttypes.h>

#include "cli.h"

typedef struct Arguments {
  DeviceOptions device;
  const char *data;
  bool json;
} Arguments;

static const Option options[] = {
    TEXT("data", data, "DIR", "the data set's folder (default: the one that the network was trained on)"),
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

static void say_whose(const NitiDataFacts *data) {
  if (data->run_path && !data->of_run)
    say("%s is not the data of the run, which was trained on %s: its test images are others", data->path, data->run_path);
}

static int report(const NitiLocation *network, const NitiModel *model, const NitiScore *score, bool json) {
  char hash[65];
  const bool trained = network->kind == NITI_LOCATED_CHECKPOINT;
  const NitiDataFacts *data = niti_model_data(model);
  if (niti_model_hash(model, hash) != NITI_OK) return fail();
  say_whose(data);
  if (json) {
    json_t *facts = data_json(data);
    json_object_set_new(facts, "of_run", json_boolean(data->of_run));
    return print_json(json_pack("{s:f, s:f, s:s, s:I, s:I, s:o, s:s, s:b, s:o}", "test_accuracy",
                                percent(score->correct, score->images), "test_loss", nats(*score), "loss_unit", "nats", "correct",
                                (json_int_t)score->correct, "images", (json_int_t)score->images, "checkpoint",
                                json_name(network->path), "hash", hash, "trained", trained, "data", facts));
  }
  printf("test accuracy %.2f %% (%" PRId64 " of %" PRId64 "), loss %.4f nats\n", percent(score->correct, score->images),
         score->correct, score->images, nats(*score));
  data_print(stdout, data);
  return EXIT_OK;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_eval, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_eval, count == 0 ? "a network is missing" : "one network at a time");

  const NitiDevice device = device_of(&given.device);
  NitiLocation network;
  NitiModel *model = NULL;
  NitiScore score;
  int result = EXIT_FAILED;
  if (!locate_weights(&network, argv[1])) return fail();
  if (niti_model_open(&model, argv[1], &device) != NITI_OK || niti_model_evaluate(model, &score, given.data) != NITI_OK) {
    result = fail();
  } else {
    result = report(&network, model, &score, given.json);
  }
  niti_model_close(model);
  niti_location_close(&network);
  return result;
}
