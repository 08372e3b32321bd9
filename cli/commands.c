/* The table of commands, in the order in which help lists them. */
#include <string.h>

#include "cli.h"
#include "config/closest.h"

extern const Command command_train, command_eval, command_predict, command_summary, command_info, command_data, command_hash,
    command_bench, command_export, command_import, command_replay, command_vectors, command_compare, command_program,
    command_find_lr, command_tune, command_show, command_fold, command_help, command_completion, command_complete, command_man;

const Command *const commands[] = {
    &command_train,
    &command_find_lr,
    &command_eval,
    &command_predict,
    &command_summary,
    &command_program,
    &command_show,
    &command_info,
    &command_data,
    &command_hash,
    &command_fold,
    &command_export,
    &command_import,
    &command_replay,
    &command_vectors,
    &command_compare,
    &command_bench,
    &command_tune,
    &command_help,
    &command_completion,
    &command_man,
    &command_complete,
    NULL,
};
enum { COMMANDS = sizeof commands / sizeof *commands - 1 };

const Command *command_find(const char *name) {
  for (size_t i = 0; i < COMMANDS; ++i) {
    if (strcmp(commands[i]->name, name) == 0) return commands[i];
  }
  return NULL;
}

const Command *command_want(const Command *by, const char *name) {
  const Command *command = command_find(name);
  char hint[NITI_HINT_MAX];
  if (command && command->summary) return command;
  (void)usage_error(by, "unknown command '%s'%s", name, command_hint(hint, name));
  return NULL;
}

const char *command_hint(char *buffer, const char *name) {
  const char *names[COMMANDS + 1];
  size_t count = 0;
  for (size_t i = 0; i < COMMANDS; ++i) {
    if (commands[i]->summary) names[count++] = commands[i]->name;
  }
  names[count] = NULL;
  return niti_did_you_mean(buffer, name, names);
}
