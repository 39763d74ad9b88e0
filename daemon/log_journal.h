/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TD_LOG_JOURNAL_H
#define TD_LOG_JOURNAL_H

void td_log_journal_init(void); /* from now on messages go to the systemd journal, with fields, if stderr is connected to it */

#endif
