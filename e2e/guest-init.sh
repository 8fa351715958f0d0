#!/bin/sh
# The first process of a guest: it makes a root out of the host's read-only files with
# memory over what has to be written, and hands over to systemd, whose only service
# runs OUT/script. What is written to OUT is the host's again; all else is forgotten.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
for word in $(cat /proc/cmdline); do
    case $word in
    guest_out=*) out=${word#*=} ;;
    guest_show=*) show=$(echo "${word#*=}" | tr : ' ') ;;
    esac
done

mount -t tmpfs tmpfs /mnt
mkdir /mnt/root /mnt/etc
root=/mnt/root
mount --rbind / $root
cp -a /etc/. /mnt/etc
mount --bind /mnt/etc $root/etc
for folder in run tmp var; do mount -t tmpfs tmpfs $root/$folder; done
mkdir -p $root/var/lib $root/var/log $root/var/tmp $root/var/cache
for folder in $out $show; do
    mkdir -p "$root$folder"
    mount -t hostfs -o "$folder" hostfs "$root$folder"
done

rm -rf $root/etc/systemd/system/*.wants
: >$root/etc/fstab
echo 00112233445566778899aabbccddeeff >$root/etc/machine-id
cat >$root/etc/systemd/system/guest.service <<UNIT
[Unit]
DefaultDependencies=no
Wants=dbus.socket
After=dbus.socket
[Service]
Type=oneshot
Delegate=yes
TimeoutStopSec=1s
Environment=HOME=/tmp OUT=$out PATH=/usr/local/sbin:/usr/local/bin:$PATH
ExecStart=/bin/sh -c '/bin/sh $out/script >$out/output 2>&1; echo \$? >$out/code; sync'
ExecStopPost=/bin/systemctl poweroff -ff
UNIT

cd $root || exit 1
for folder in proc sys dev; do mount --move /$folder $root/$folder; done
mkdir -p dev/shm
mount -t tmpfs tmpfs dev/shm
exec chroot . /lib/systemd/systemd --system --unit=guest.service \
    --log-target=null --show-status=no </dev/console >/dev/console 2>&1
