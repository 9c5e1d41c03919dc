/* topic_check.h - what can be said against a Topic before the broker is asked. */
#ifndef TOPIC_CHECK_H
#define TOPIC_CHECK_H

#include "plan.h"

/* Settings that the broker would refuse, of all Topics and KafkaTopics of set: an error for each. Needs no broker that runs. */
void topic_check_settings(const struct objset *set, struct diags *d);

/* Objects of given that name another topic than they do in now: an error for each whose former topic no object of merged would declare, since that
 * topic would be deleted with its records. */
void topic_check_names(const struct objset *now, const struct objset *merged, const struct objset *given, struct diags *d);

#endif
