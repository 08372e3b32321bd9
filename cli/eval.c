/* niti eval: the score of a network on a data set's test split. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"

typedef struct Arguments {
  DeviceOptions device;
  const char *data, *split;
  bool json;
} Arguments;

static const Option options[] = {
    TEXT("data", data, "DIR", "the data set's folder (default: the one that the network was trained on)"),
    CHOICE("split", split, "test|validation|train", "what to score: test (the default), validation or train"),
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

static const char *const split_words[] = {"train", "test", "validation"}, *const split_names[] = {"training", "test",
                                                                                                  "validation"};

/* The split of that word; NULL: test. False: there is none. */
static bool find_split(NitiSplit *out, const char *word) {
  *out = NITI_TEST;
  for (int i = 0; word && i < 3; ++i) {
    if (strcmp(word, split_words[i]) != 0) continue;
    *out = (NitiSplit)i;
    return true;
  }
  return !word;
}

static void say_whose(const NitiDataFacts *data) {
  if (data->run_path && !data->of_run)
    say("%s is not the data of the run, which was trained on %s: its %s images are others", data->path, data->run_path,
        split_names[data->scored]);
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
    const char *word = split_words[data->scored];
    char accuracy[32], loss[32];
    (void)snprintf(accuracy, sizeof accuracy, "%s_accuracy", word);
    (void)snprintf(loss, sizeof loss, "%s_loss", word);
    return print_json(json_pack("{s:s, s:f, s:f, s:s, s:I, s:I, s:o, s:s, s:b, s:o}", "split", word, accuracy,
                                percent(score->correct, score->images), loss, nats(*score), "loss_unit", "nats", "correct",
                                (json_int_t)score->correct, "images", (json_int_t)score->images, "checkpoint",
                                json_name(network->path), "hash", hash, "trained", trained, "data", facts));
  }
  printf("%s accuracy %.2f %% (%" PRId64 " of %" PRId64 "), loss %.4f nats\n", split_names[data->scored],
         percent(score->correct, score->images), score->correct, score->images, nats(*score));
  data_print(stdout, data);
  return EXIT_OK;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_eval, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_eval, count == 0 ? "a checkpoint is missing" : "one checkpoint at a time");

  NitiSplit split;
  if (!find_split(&split, given.split))
    return usage_error(&command_eval, "--split: '%s' is not test, validation or train", given.split);
  const NitiDevice device = device_of(&given.device);
  NitiLocation network;
  NitiModel *model = NULL;
  NitiScore score;
  int result = EXIT_FAILED;
  if (!locate_weights(&network, argv[1])) return fail();
  if (niti_model_open(&model, argv[1], &device) != NITI_OK ||
      niti_model_evaluate_split(model, &score, given.data, split) != NITI_OK) {
    result = fail();
  } else {
    result = report(&network, model, &score, given.json);
  }
  niti_model_close(model);
  niti_location_close(&network);
  return result;
}
