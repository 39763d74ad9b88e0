/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The real plugins, linked in. The build gives each one's only symbol a name of its own. */
#include "real_codecs.h"

#include "fuzz.h"

extern const struct terrace_plugin fuzz_plugin_crc32c;
#ifdef FUZZ_ZSTD
extern const struct terrace_plugin fuzz_plugin_zstd;
#endif
#ifdef FUZZ_LZ4
extern const struct terrace_plugin fuzz_plugin_lz4;
#endif
#ifdef FUZZ_XXHASH
extern const struct terrace_plugin fuzz_plugin_xxhash;
#endif

static const struct terrace_plugin *const plugins[] = {
	&fuzz_plugin_crc32c,
#ifdef FUZZ_ZSTD
	&fuzz_plugin_zstd,
#endif
#ifdef FUZZ_LZ4
	&fuzz_plugin_lz4,
#endif
#ifdef FUZZ_XXHASH
	&fuzz_plugin_xxhash,
#endif
};

const struct ter_codecs *fuzz_codecs(void)
{
	static struct ter_codecs codecs;

	if (codecs.nr)
		return &codecs;
	for (unsigned i = 0; i < ARRAY_SIZE(plugins); i++) {
		if (plugins[i]->init)
			fuzz_check(plugins[i]->init(NULL) == 0);
		for (unsigned a = 0; plugins[i]->algos[a]; a++)
			fuzz_check(ter_codecs_add(&codecs, plugins[i]->algos[a]) == 0);
	}
	return &codecs;
}

const struct ter_sb *fuzz_sb(void)
{
	static struct ter_sb sb;
	const struct ter_codecs *codecs = fuzz_codecs();

	if (sb.seq)
		return &sb;
	sb.seq = 1;
	memset(sb.uuid, 0x5a, sizeof(sb.uuid));
	ter_options_default(&sb.options);
	sb.options.block_size = 512;
	sb.options.btree_node_size = 16384;
	for (unsigned i = 0; i < codecs->nr; i++)
		fuzz_check(ter_sb_algo_slot(&sb, codecs, (enum terrace_kind)codecs->algo[i]->kind, codecs->algo[i]->name) > 0);
	sb.blacklist[0].first = 1000;
	sb.blacklist[0].last = 1009;
	sb.blacklist_nr = 1;
	return &sb;
}

const struct ter_dev *fuzz_dev(void)
{
	static struct ter_dev dev;

	dev.used = true;
	dev.bucket_sectors = 128;
	dev.buckets_nr = 256;
	dev.first_bucket = 4;
	return &dev;
}
